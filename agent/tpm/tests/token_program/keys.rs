//! Keys as operators make them, and openssl as the judge of what they sign.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use token::link::{OpenTpmKey, TpmKeySource};

use crate::program::key;
use crate::swtpm::Swtpm;

/// The storage key that most keys are made under.
pub(crate) const PARENT: &str = "0x81000001";

const STORAGE: &str =
    "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";

/// A policy command of a key file: its code and its body.
pub(crate) type Command = (u32, Vec<u8>);

impl Swtpm {
    pub(crate) fn make_parent(&self, options: &str) {
        let attributes = match options.contains("-a ") {
            true => String::new(),
            false => format!("-a {STORAGE}"),
        };
        self.tool(&format!(
            "tpm2_createprimary -Q -C o -G ecc -c parent.ctx {attributes} {options}"
        ));
        self.tool(&format!("tpm2_evictcontrol -Q -c parent.ctx {PARENT}"));
        self.flush();
    }

    /// A TPM counts each loss of power without TPM2_Shutdown as a failed authorization, and swtpm's limit is
    /// three.
    pub(crate) fn raise_lockout_limit(&self) {
        self.tool(
            "tpm2_dictionarylockout -Q --setup-parameters --max-tries=32 --recovery-time=600 \
             --lockout-recovery-time=600",
        );
        self.flush();
    }

    /// A parent that is not noDA: its wrong auth values count for the lockout.
    pub(crate) fn make_counting_parent(&self, auth: &str) {
        let attributes = STORAGE.trim_end_matches("|noda");
        self.make_parent(&format!("-p {auth} -a {attributes}"));
    }

    /// Transient objects of somebody else's.
    pub(crate) fn fill(&self, objects: u32) {
        for _ in 0..objects {
            self.tool("tpm2_createprimary -Q -C n -G ecc -c other.ctx");
            self.tool("tpm2_flushcontext -l");
        }
    }

    /// Undoes [`fill`](Self::fill), by the handles: the token program's own objects come and go meanwhile.
    pub(crate) fn make_room(&self, objects: u32) {
        for object in 0..objects {
            let handle = 0x8000_0000 + object;
            self.tool(&format!("tpm2_flushcontext {handle:#x}"));
        }
    }

    pub(crate) fn change_owner_auth(&self, auth: &str) {
        self.tool(&format!("tpm2_changeauth -Q -c o {auth}"));
        self.flush();
    }

    /// `NAME.tss` by tpm2_create and tpm2_encodeobject.
    pub(crate) fn make(&self, name: &str, options: &str) {
        self.tool(&format!(
            "tpm2_create -Q -C {PARENT} -u {name}.pub -r {name}.priv -f pem -o {name}.pem {options}"
        ));
        self.tool(&format!(
            "tpm2_encodeobject -Q -C {PARENT} -u {name}.pub -r {name}.priv -o {name}.tss"
        ));
        self.flush();
    }

    /// `NAME.ctx`, for other tools.
    pub(crate) fn load(&self, name: &str, options: &str) {
        self.tool(&format!(
            "tpm2_load -Q -C {PARENT} -u {name}.pub -r {name}.priv -c {name}.ctx {options}"
        ));
        self.flush();
    }

    /// `NAME.tss` by tpm2-openssl.
    pub(crate) fn make_openssl(&self, name: &str, algorithm: &str, options: &str) {
        self.tool(&format!(
            "openssl genpkey -quiet -provider tpm2 -algorithm {algorithm} {options} -out {name}.tss"
        ));
        // Its public area, the first OCTET STRING of the file, becomes a public key for openssl.
        let parsed = self.tool(&format!("openssl asn1parse -in {name}.tss"));
        let line = parsed.lines().find(|line| line.contains("OCTET STRING"));
        let (offset, _) = line.unwrap().trim().split_once(':').unwrap();
        self.tool(&format!(
            "openssl asn1parse -in {name}.tss -strparse {offset} -noout -out {name}.pub"
        ));
        let pem = self.tool(&format!("tpm2_print -t TPM2B_PUBLIC -f pem {name}.pub"));
        fs::write(self.path(&format!("{name}.pem")), pem).unwrap();
    }

    /// `NAME.tss` under the storage primary that is derived in a hierarchy.
    pub(crate) fn make_under_primary(&self, name: &str, hierarchy: &str, handle: u32) {
        self.tool(&format!(
            "tpm2_createprimary -Q -C {hierarchy} -G ecc -a {STORAGE} -c primary.ctx"
        ));
        self.flush();
        self.tool(&format!(
            "tpm2_create -Q -C primary.ctx -G ecc256 -u {name}.pub -r {name}.priv -f pem -o {name}.pem"
        ));
        self.flush();
        self.write_key_file(name, KeyFile::under(handle));
    }

    /// A key that only these policy commands, in this order, can use.
    pub(crate) fn make_with_policy(&self, name: &str, options: &str, commands: &[Command]) {
        let digest = policy_digest(commands);
        self.create_with_policy(name, options, &digest);
        let mut file = KeyFile::under(0x8100_0001);
        file.policy = commands.to_vec();
        self.write_key_file(name, file);
    }

    fn create_with_policy(&self, name: &str, options: &str, digest: &[u8]) {
        fs::write(self.path("policy.bin"), digest).unwrap();
        self.tool(&format!(
            "tpm2_create -Q -C {PARENT} -G ecc256 -L policy.bin {options} -u {name}.pub -r {name}.priv \
             -a fixedtpm|fixedparent|sensitivedataorigin|sign -f pem -o {name}.pem"
        ));
        self.flush();
    }

    /// A key for whatever policy a certain RSA key has signed.
    pub(crate) fn make_with_signed_policy(&self, name: &str, commands: &[Command]) {
        self.tool("openssl genrsa -out signer.key 2048");
        self.tool("openssl rsa -in signer.key -pubout -out signer.pem");
        self.tool("tpm2_loadexternal -Q -C o -G rsa -u signer.pem -c signer.ctx -n signer.name");
        self.tool("tpm2_readpublic -Q -c signer.ctx -o signer.pub");
        self.flush();
        let signer = fs::read(self.path("signer.name")).unwrap();
        let begun = Sha256::digest([&[0; 32][..], &[0, 0, 1, 0x6a], &signer].concat());
        self.create_with_policy(name, "", &Sha256::digest(begun));

        fs::write(self.path("approved"), policy_digest(commands)).unwrap();
        self.tool("openssl dgst -sha256 -sign signer.key -out approved.sig approved");
        let public = fs::read(self.path("signer.pub")).unwrap();
        let no_reference = [0, 0];
        let unsigned = [&public[..], &no_reference].concat();
        let signature = fs::read(self.path("approved.sig")).unwrap();
        let rsassa_sha256 = [0, 0x14, 0, 0x0b, 1, 0];
        let signed = [&unsigned[..], &rsassa_sha256, &signature].concat();

        let mut file = KeyFile::under(0x8100_0001);
        file.policy = vec![(0x16a, unsigned)];
        // One that does not hold comes first.
        let wrong = vec![pcr_command(&[0xee; 32], &[7]), (0x16a, signed.clone())];
        let mut right = commands.to_vec();
        right.push((0x16a, signed));
        file.signed_policies = vec![wrong, right];
        self.write_key_file(name, file);
    }

    /// A key of openssl's, wrapped for the parent.
    pub(crate) fn make_importable(&self, name: &str) {
        self.tool(&format!(
            "openssl ecparam -name prime256v1 -genkey -noout -out {name}.key"
        ));
        self.tool(&format!(
            "openssl ec -in {name}.key -pubout -out {name}.pem"
        ));
        self.tool(&format!("tpm2_readpublic -Q -c {PARENT} -o parent.pub"));
        self.tool(&format!(
            "tpm2_duplicate -Q -T none -U parent.pub -G ecc -k {name}.key -u {name}.pub -r {name}.priv \
             -s {name}.seed"
        ));
        let mut file = KeyFile::under(0x8100_0001);
        file.secret = Some(fs::read(self.path(&format!("{name}.seed"))).unwrap());
        self.write_key_file(name, file);
    }

    /// The tools leave their objects and sessions behind where no resource manager clears up after them.
    pub(crate) fn flush(&self) {
        self.tool("tpm2_flushcontext -t");
        self.tool("tpm2_flushcontext -l");
    }

    pub(crate) fn persist(&self, name: &str, handle: u32, options: &str) {
        self.tool(&format!(
            "tpm2_evictcontrol -Q -C o {options} -c {name}.ctx {handle:#x}"
        ));
        self.flush();
    }

    /// PolicyPCR with the values of now: `tpm.policy_pcr(&[7, 16])`, of the SHA-256 bank.
    pub(crate) fn policy_pcr(&self, numbers: &[u8]) -> Command {
        let list: Vec<String> = numbers.iter().map(u8::to_string).collect();
        self.tool(&format!(
            "tpm2_pcrread -Q sha256:{} -o pcrs",
            list.join(",")
        ));
        let values = fs::read(self.path("pcrs")).unwrap();
        pcr_command(&Sha256::digest(values), numbers)
    }

    /// `NAME.crt`, a leaf over `NAME.pem`.
    pub(crate) fn make_certificate(&self, name: &str) {
        let path = self.path("ca.crt");
        if !path.exists() {
            self.tool(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key \
                 -out ca.crt -subj /CN=CA -days 2",
            );
            fs::write(
                self.path("leaf.ext"),
                "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n",
            )
            .unwrap();
        }
        // The CA's key asks, the TPM's key is certified: the TPM need not sign a request here.
        self.tool(&format!(
            "openssl req -new -key ca.key -out {name}.csr -subj /CN={name}"
        ));
        self.tool(&format!(
            "openssl x509 -req -in {name}.csr -force_pubkey {name}.pem -CA ca.crt -CAkey ca.key -days 1 \
             -extfile leaf.ext -out {name}.crt"
        ));
    }

    pub(crate) fn file(&self, name: &str) -> OpenTpmKey {
        key(TpmKeySource::File(self.path(&format!("{name}.tss"))))
    }

    pub(crate) fn verifies(&self, name: &str, text: &str, signature: &[u8]) -> bool {
        fs::write(self.path("text"), text).unwrap();
        fs::write(self.path("signature"), signature).unwrap();
        let public = format!("{name}.pem");
        let arguments = [
            "dgst",
            "-sha256",
            "-verify",
            &public,
            "-signature",
            "signature",
            "text",
        ];
        self.output("openssl", &arguments).status.success()
    }

    pub(crate) fn write_key_file(&self, name: &str, file: KeyFile) {
        let read = |suffix| fs::read(self.path(&format!("{name}.{suffix}"))).unwrap();
        let der = file.to_der(&read("pub"), &read("priv"));
        fs::write(self.path("key.der"), der).unwrap();
        let path = self.path(&format!("{name}.tss"));
        let body = self.tool("openssl base64 -in key.der");
        write_pem(&path, &body);
    }
}

fn write_pem(path: &Path, body: &str) {
    let label = "TSS2 PRIVATE KEY-----";
    let text = format!("-----BEGIN {label}\n{body}-----END {label}\n");
    fs::write(path, text).unwrap();
}

/// PolicyOR of the policy of these commands and another one's digest.
pub(crate) fn policy_or(commands: &[Command], other: &[u8; 32]) -> Command {
    let one = policy_digest(commands);
    let body = [&[0, 0, 0, 2, 0, 32][..], &one, &[0, 32], other].concat();
    (0x171, body)
}

/// A PolicyPCR as openssl_tpm2_engine and go-tpm-keyfiles write it: the selection, then the bare digest.
pub(crate) fn selection_first((code, body): Command) -> Command {
    let (digest, selection) = body[2..].split_at(32);
    (code, [selection, digest].concat())
}

fn pcr_command(digest: &[u8], numbers: &[u8]) -> Command {
    let mut bits = [0; 3];
    for number in numbers {
        bits[usize::from(number / 8)] |= 1 << (number % 8);
    }
    let selection = [&[0, 0, 0, 1, 0, 0x0b, 3][..], &bits].concat();
    (0x17f, [&[0, 32][..], digest, &selection].concat())
}

/// TPM 2.0 library, part 3: what each policy command makes of the policy digest.
fn policy_digest(commands: &[Command]) -> Vec<u8> {
    let mut digest = vec![0; 32];
    for (code, body) in commands {
        let code = code.to_be_bytes();
        let extended = match u32::from_be_bytes(code) {
            0x17f => {
                let (pcrs, selection) = match body.strip_prefix(&[0, 32]) {
                    Some(body) => body.split_at(32),
                    None => {
                        let (selection, pcrs) = body.split_at(body.len() - 32);
                        (pcrs, selection)
                    }
                };
                [&digest[..], &code, selection, pcrs].concat()
            }
            0x171 => [&[0; 32][..], &code, &body[6..38], &body[40..]].concat(),
            0x16b | 0x18c => [&digest[..], &[0, 0, 1, 0x6b]].concat(),
            0x16c => [&digest[..], &code, body].concat(),
            other => panic!("{other:#x}"),
        };
        digest = Sha256::digest(extended).to_vec();
    }
    digest
}

/// What else is in a key file, beside the key.
pub(crate) struct KeyFile {
    parent: u32,
    secret: Option<Vec<u8>>,
    pub(crate) policy: Vec<Command>,
    signed_policies: Vec<Vec<Command>>,
}

impl KeyFile {
    pub(crate) fn under(parent: u32) -> KeyFile {
        KeyFile {
            parent,
            secret: None,
            policy: Vec::new(),
            signed_policies: Vec::new(),
        }
    }

    fn to_der(&self, public: &[u8], private: &[u8]) -> Vec<u8> {
        let kind = if self.secret.is_some() { 4 } else { 3 };
        let mut content = vec![6, 6, 0x67, 0x81, 5, 10, 1, kind];
        if !self.policy.is_empty() {
            content.extend(tlv(0xa1, &policy(&self.policy)));
        }
        if let Some(secret) = &self.secret {
            content.extend(tlv(0xa2, &tlv(4, secret)));
        }
        if !self.signed_policies.is_empty() {
            let each = self.signed_policies.iter().map(|commands| {
                let name = tlv(0xa0, &tlv(0x0c, b"kernel"));
                tlv(0x30, &[name, tlv(0xa1, &policy(commands))].concat())
            });
            let all: Vec<u8> = each.flatten().collect();
            content.extend(tlv(0xa3, &tlv(0x30, &all)));
        }
        content.extend(integer(self.parent));
        content.extend(tlv(4, public));
        content.extend(tlv(4, private));
        tlv(0x30, &content)
    }
}

fn policy(commands: &[Command]) -> Vec<u8> {
    let each = commands.iter().map(|(code, body)| {
        let code = tlv(0xa0, &integer(*code));
        tlv(0x30, &[code, tlv(0xa1, &tlv(4, body))].concat())
    });
    tlv(0x30, &each.flatten().collect::<Vec<_>>())
}

fn integer(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(3);
    let mut digits = bytes[first..].to_vec();
    if digits[0] & 0x80 != 0 {
        digits.insert(0, 0);
    }
    tlv(2, &digits)
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let [.., high, low] = length.to_be_bytes();
    let mut der = vec![tag];
    match length {
        0..0x80 => der.push(low),
        0x80..0x100 => der.extend([0x81, low]),
        _ => der.extend([0x82, high, low]),
    }
    der.extend(content);
    der
}
