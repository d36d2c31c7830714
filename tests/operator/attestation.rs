//! Attestations of a TPM's keys.

use super::*;

#[test]
fn an_attestation_holds_for_its_request_alone_and_for_tpm2_tools_too() {
    let desk = Desk::new();
    desk.text("key generate --tpm TCTI --out web.tss");
    desk.text("csr --key web.tss --tpm TCTI --subject CN=web --out web.csr --attest web");
    let verdict = desk.json("attest verify --csr web.csr --attestation web.json --json");
    assert_eq!(verdict["proven"], true, "{verdict}");
    let name = verdict["attestationKeyName"].as_str().unwrap().to_owned();
    let text = desk.text("attest verify --csr web.csr --attestation web.json");
    assert_eq!(text.matches("holds  ").count(), 8, "{text}");
    assert!(
        text.contains("not proven: ") && text.contains("challenge"),
        "{text}"
    );

    desk.text("csr --key web.tss --tpm TCTI --subject CN=web --out other.csr");
    let output = desk.run("attest verify --csr other.csr --attestation web.json");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FAILS  the statement certifies this CSR"),
        "{text}"
    );
    // The pieces are what other tools know.
    let attestation: Value =
        serde_json::from_slice(&std::fs::read(desk.path("web.json")).unwrap()).unwrap();
    let piece = |name: &str| {
        let bytes = openssl::base64::decode_block(attestation[name].as_str().unwrap()).unwrap();
        std::fs::write(desk.path(name), &bytes).unwrap();
        bytes
    };
    let statement = piece("statement");
    piece("signature");
    piece("publicArea");
    let area = piece("attestationKey");
    assert_eq!(name, format!("000b{}", hex(&openssl::sha::sha256(&area))));
    let sized = [&u16::try_from(area.len()).unwrap().to_be_bytes()[..], &area].concat();
    std::fs::write(desk.path("ak.pub"), sized).unwrap();
    let tool = |program: &str, line: &str| {
        let mut tool = desk.tpm.tool(program);
        tool.args(line.split_whitespace())
            .current_dir(desk.scene.dir());
        String::from_utf8(command::output(&mut tool).unwrap()).unwrap()
    };
    tool("tpm2_loadexternal", "-Q -C n -u ak.pub -c ak.ctx");
    tool(
        "tpm2_verifysignature",
        "-c ak.ctx -g sha256 -m statement -s signature",
    );
    let printed = tool("tpm2_print", "-t TPMT_PUBLIC publicArea");
    assert!(
        printed.contains("fixedtpm|fixedparent|sensitivedataorigin"),
        "{printed}"
    );
    let request = X509Req::from_pem(&std::fs::read(desk.path("web.csr")).unwrap()).unwrap();
    let digest = openssl::sha::sha256(&request.to_der().unwrap());
    assert!(statement.windows(32).any(|bytes| bytes == digest));
}

#[test]
fn an_attestation_brings_the_endorsement_certificates_along() {
    let desk = Desk::new();
    let verify = "attest verify --csr web.csr --attestation web.json --ek-ca ca.pem";
    let ca = desk.scene.pki().intermediate_pem().unwrap();
    desk.scene.write("ca.pem", &ca).unwrap();
    desk.text("key generate --tpm TCTI --out web.tss");
    desk.text("csr --key web.tss --tpm TCTI --subject CN=web --out web.csr --attest web");
    let output = desk.run(verify);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FAILS  the attestation has an endorsement certificate"),
        "{text}"
    );

    // As a TPM's vendor does in the factory.
    let ek = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let public = ek.public_key_to_der().unwrap();
    let certificate = desk
        .scene
        .pki()
        .leaf(&public, &LeafSpec::new("ek"))
        .unwrap();
    std::fs::write(desk.path("ek.der"), &certificate.der).unwrap();
    let size = certificate.der.len().to_string();
    let index = "0x1c0000a";
    let mut define = desk.tpm.tool("tpm2_nvdefine");
    define.args([
        "-Q",
        "-C",
        "o",
        "-s",
        &size,
        "-a",
        "ownerwrite|ownerread|authread|no_da",
        index,
    ]);
    command::output(&mut define).unwrap();
    let mut write = desk.tpm.tool("tpm2_nvwrite");
    write
        .args(["-Q", "-C", "o", "-i"])
        .arg(desk.path("ek.der"))
        .arg(index);
    command::output(&mut write).unwrap();

    std::fs::remove_file(desk.path("web.csr")).unwrap();
    std::fs::remove_file(desk.path("web.json")).unwrap();
    desk.text("csr --key web.tss --tpm TCTI --subject CN=web --out web.csr --attest web");
    let text = desk.text(verify);
    assert!(
        text.contains("holds  endorsement certificate: number"),
        "{text}"
    );
    assert!(
        text.contains("not proven: the attestation key is in the TPM"),
        "{text}"
    );
    desk.scene
        .write("ca.pem", &desk.scene.pki().root_pem().unwrap())
        .unwrap();
    assert_eq!(desk.run(verify).status.code(), Some(1));
}
