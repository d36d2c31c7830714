use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use hsm_fixtures::{PIN, PROFILE_ARN, SoftHsm, TRUST_ANCHOR_ARN, programs};
use serde_json::Value;

use crate::quickstart::blocks;

/// A server of its own, in a mount namespace: what is installed, configured and started there is gone with it. `sudo` and
/// `systemctl` do what they do on a server, as far as that goes without systemd; `aws` has an administrator's rights.
const SERVER: &str = r#"
mount -t tmpfs tmpfs "$HOME"
cp -a /etc "$HOME/etc" && mount --bind "$HOME/etc" /etc
for directory in /usr/local /var/lib /run; do mount -t tmpfs -o mode=755 tmpfs $directory; done
chmod 711 "$HOME" && cd "$HOME" && mkdir bin work tokens

cat > bin/sudo <<'END'
#!/bin/sh
[ "$1" != -u ] || { user=$2; shift 2; exec setpriv --reuid "$user" --regid "$user" --init-groups "$@"; }
exec "$@"
END
cat > bin/systemctl <<'END'
#!/bin/sh
[ "$*" = "enable --now roleseal-agent.socket roleseal-agent.service" ] || exit 1
sed -n 's/^ExecStart=//p' /usr/local/lib/systemd/system/roleseal-agent.service > "$HOME/start"
install -d -o roleseal /run/roleseal
sudo -u roleseal $(cat "$HOME/start") 2> "$HOME/agent.log" &
echo $! > "$HOME/agent.pid"
timeout 60 sh -c 'until [ -S /run/roleseal/agent.sock ]; do sleep 0.1; done'
END
cat > bin/aws <<'END'
#!/bin/sh
case "$1 $2" in
"rolesanywhere create-trust-anchor") echo "$ANCHOR" ;;
"rolesanywhere create-profile") echo "$PROFILE" ;;
"iam create-role") [ "$3" = --role-name ] && echo "arn:aws:iam::123456789012:role/$4" ;;
*) exit 1 ;;
esac
END
chmod 755 bin/*
PATH=$HOME/bin:$PATH
trap 'cat "$HOME/agent.log" >&2; kill $(cat "$HOME/agent.pid")' EXIT
cd work
"#;

/// A token, which the agent's user made.
const TOKEN: &str = r#"
rm -rf /etc/softhsm && mkdir -m 755 /etc/softhsm
echo "directories.tokendir = $HOME/tokens" > /etc/softhsm/softhsm2.conf
chown roleseal "$HOME/tokens"
sudo -u roleseal softhsm2-util --init-token --free --label production --so-pin "$PIN" --pin "$PIN"
"#;

/// The CA's part.
const CA: &str = r"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 365 -subj /CN=CA -addext keyUsage=critical,keyCertSign,cRLSign
openssl x509 -req -in web.csr -CA ca.pem -CAkey ca.key -days 30 -copy_extensions copy -out web.pem
";

/// The commands of docs/install.md, pasted by root, down to a request that the agent signs as configuration and target
/// have it; only AWS itself is out of reach.
#[test]
fn from_the_sources_to_an_agent_that_signs() {
    if as_root::by_sudo!() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let install = root.join("packaging/install.sh").display().to_string();
    let module = SoftHsm::module().unwrap().display().to_string();
    let json = "doctor --target web --json > report || true";
    let mut pasted = blocks("docs/install.md");
    for (block, written, instead) in [
        (0, "cargo build --release --workspace --bins", "true"),
        (0, "packaging/install.sh", &install),
        (2, "/usr/lib/vendor/libpkcs11.so", &module),
        (6, "doctor --target web", json),
    ] {
        assert!(pasted[block].contains(written), "{}", pasted[block]);
        pasted[block] = pasted[block].replace(written, instead);
    }
    pasted[0] += TOKEN;
    pasted[2] += CA;
    let script = format!("{SERVER}{}cat report\n", pasted.concat());
    let own = programs::roleseal().unwrap();
    let mut shell = Command::new("timeout"); // a process group of its own, which it ends as a whole
    shell
        .args(["--kill-after=5", "240", "unshare", "--mount"])
        .args(["bash", "-eux", "-o", "pipefail", "-c", &script])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home.path())
        .env("ROLESEAL_PROGRAMS", own.parent().unwrap())
        .env("HTTPS_PROXY", "http://127.0.0.1:1") // nothing is sent to AWS
        .envs([("PIN", PIN), ("ANCHOR", TRUST_ANCHOR_ARN)])
        .env("PROFILE", PROFILE_ARN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    writeln!(shell.stdin.take().unwrap(), "{PIN}").unwrap();
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{told}");
    let report: Value = serde_json::from_str(&said[said.rfind("\n[").unwrap()..]).unwrap();
    let first = report
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["state"] == "failed");
    assert_eq!(first.unwrap()["check"], "connection", "{said}\n{told}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}
