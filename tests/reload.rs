use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hsm_fixtures::{BATCH_ROLE_ARN, KeyKind, LeafSpec};
use serde_json::{Value, json};

use crate::agent::{Lab, Web, call, request, serial, sign, spied_calls, token_programs, until};

/// Runs `change` while four clients ask without a pause; none of them may be refused. It gets what waits until they
/// have asked so many times. Says how many times they asked.
pub(crate) fn under_load(web: &Web, change: impl FnOnce(&dyn Fn(usize))) -> usize {
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let reply = sign(&web.scene.socket(), request(&web.scene));
                    if reply.get("error").is_some() {
                        done.store(true, Ordering::Relaxed);
                        panic!("{reply}");
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let until_asked = |count| {
            until("requests are answered", || {
                let over = done.load(Ordering::Relaxed) || asked.load(Ordering::Relaxed) >= count;
                over.then_some(())
            });
        };
        until_asked(10);
        change(&until_asked);
        until_asked(asked.load(Ordering::Relaxed) + 10);
        done.store(true, Ordering::Relaxed);
    });
    asked.into_inner()
}

fn logins(web: &Web) -> usize {
    let calls = spied_calls(&web.scene);
    calls.iter().filter(|call| *call == "C_Login").count()
}

#[test]
fn rules_change_and_the_login_stays() {
    let lab = Lab::new(KeyKind::EcP256);
    let mut config = lab.config.clone();
    config.pkcs11_module = hsm_fixtures::SoftHsm::spy_module().unwrap();
    let web = lab.start_spied();
    assert_eq!(
        sign(&web.scene.socket(), request(&web.scene)).get("error"),
        None
    );
    let programs = token_programs(&web.agent);
    let batch = || {
        let mut request = request(&web.scene);
        let role = BATCH_ROLE_ARN.replace(':', "%3A").replace('/', "%2F");
        let query = request["query"].as_str().unwrap().to_owned();
        let (front, back) = query.split_once("roleArn=").unwrap();
        let (_, back) = back.split_once('&').unwrap();
        request["query"] = format!("{front}roleArn={role}&{back}").into();
        sign(&web.scene.socket(), request)
    };
    assert_eq!(batch()["error"], "org.roleseal.Agent.NotPermitted");
    config.identity[0].allow[0]
        .roles
        .push(BATCH_ROLE_ARN.to_owned());
    let count = under_load(&web, |_| {
        let said = web.reload(&config);
        assert!(said.contains("1 identities"), "{said}");
    });
    assert!(count >= 20);
    assert_eq!(batch().get("error"), None);
    assert_eq!(logins(&web), 1);
    assert_eq!(token_programs(&web.agent), programs);
}

#[test]
fn an_invalid_configuration_changes_nothing_and_says_why() {
    let lab = Lab::new(KeyKind::EcP256);
    let good = lab.config.to_toml().unwrap();
    let web = lab.start();
    for (text, expected) in [
        ("[[identity]".to_owned(), "agent.toml:1"),
        (good.replace("max-duration", "min-duration"), "min-duration"),
        (good.replace("lab.pin", "absent.pin"), "absent.pin"),
        (good.replace("web.pem", "root.pem"), "CA certificate"),
    ] {
        let said = web.reload_text(&text);
        assert!(said.contains("not reloaded: "), "{said}");
        let log = web.agent.process().log();
        assert!(log.contains(expected), "{expected}: {log}");
        let reply = sign(&web.scene.socket(), request(&web.scene));
        assert_eq!(reply.get("error"), None, "{reply}");
    }
}

/// The token is opened anew, since its program has other keys; whoever asks meanwhile waits.
#[test]
fn identities_come_and_go_without_a_lost_request() {
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.identity[0].sessions = Some(2);
    let token = lab.scene.add_token("other").unwrap();
    let other = lab
        .scene
        .add_identity(&token, "other", KeyKind::EcP256)
        .unwrap();
    let before = lab.config.clone();
    let mut after = lab.config.clone();
    let mut twin = after.identity[0].clone();
    twin.name = "twin".to_owned();
    after.identity.extend([twin, other]);
    let web = lab.start();
    let named = |name: &str| {
        let mut request = request(&web.scene);
        request["identity"] = name.into();
        sign(&web.scene.socket(), request)
    };
    for _ in 0..3 {
        under_load(&web, |_| {
            web.reload(&after);
        });
        assert_eq!(named("twin").get("error"), None);
        assert_eq!(named("other")["error"], "org.roleseal.Agent.NotPermitted");
        until("there is a program for each token", || {
            (token_programs(&web.agent).len() == 2).then_some(())
        });
        under_load(&web, |_| {
            web.reload(&before);
        });
        assert_eq!(
            named("twin")["error"],
            "org.roleseal.Agent.IdentityNotFound"
        );
        until("the others have ended", || {
            (token_programs(&web.agent).len() == 1).then_some(())
        });
    }
}

/// A certificate for the key of `web`, or for another key.
pub(crate) fn issue(web: &Web, key: &Path) -> String {
    issue_as(web, key, &LeafSpec::new("web"))
}

fn issue_as(web: &Web, key: &Path, spec: &LeafSpec) -> String {
    let pem = fs::read(key).unwrap();
    let leaf = openssl::x509::X509::from_pem(&pem).unwrap();
    let spki = leaf.public_key().unwrap().public_key_to_der().unwrap();
    let path = web.scene.path("issued.pem");
    let _ = fs::remove_file(&path);
    let leaf = web.scene.pki().leaf(&spki, spec).unwrap();
    leaf.write(&path).unwrap();
    fs::read_to_string(path).unwrap()
}

#[test]
fn renewed_certificates_are_taken_over_and_others_are_not() {
    let mut lab = Lab::new(KeyKind::EcP256);
    // As cert-manager has it: a link to a folder that is swapped as a whole.
    let folder = |name: &str| lab.scene.path(name);
    for name in ["one", "two"] {
        fs::create_dir(folder(name)).unwrap();
    }
    let live = folder("live.pem");
    fs::copy(folder("web.pem"), folder("one/web.pem")).unwrap();
    symlink("one", folder("data")).unwrap();
    symlink("data/web.pem", &live).unwrap();
    lab.config.identity[0].certificate = live.clone();
    let config = lab.config.clone();
    let stranger = lab.scene.add_token("stranger").unwrap();
    lab.scene
        .add_identity(&stranger, "stranger", KeyKind::EcP256)
        .unwrap();
    let web = lab.start();
    assert_eq!(
        sign(&web.scene.socket(), request(&web.scene)).get("error"),
        None
    );
    let first = serial(&web.scene);
    let path = |name: &str| web.scene.path(name);
    let swap = |target: &str, name: &str| {
        symlink(target, path("new")).unwrap();
        fs::rename(path("new"), path(name)).unwrap();
    };
    let log_says = |text: &str| {
        until(text, || {
            web.agent.process().log().contains(text).then_some(())
        });
    };

    fs::write(path("two/web.pem"), issue(&web, &path("web.pem"))).unwrap();
    under_load(&web, |_| {
        swap("two", "data");
        web.until_serial(|serial| serial != first);
    });
    let second = serial(&web.scene);

    // Half of it, an expired one, then a certificate of another key: none is used.
    let whole = issue(&web, &path("web.pem"));
    fs::write(path("two/web.pem"), &whole[..whole.len() / 3]).unwrap();
    log_says("is cut off");
    let expired = issue_as(&web, &path("web.pem"), &LeafSpec::expired("web"));
    fs::write(path("two/web.pem"), expired).unwrap();
    log_says("it expired on");
    fs::write(path("two/web.pem"), issue(&web, &path("stranger.pem"))).unwrap();
    log_says("not of this key");
    assert_eq!(serial(&web.scene), second);
    assert_eq!(
        sign(&web.scene.socket(), request(&web.scene)).get("error"),
        None
    );
    assert_eq!(serial(&web.scene), second);

    // What is there now is refused at a reload, too; a good one is used at once.
    fs::write(path("two/web.pem"), &whole).unwrap();
    under_load(&web, |_| {
        web.reload(&config);
        web.until_serial(|serial| serial != second);
    });
    let headers = sign(&web.scene.socket(), request(&web.scene));
    let authorization = headers["parameters"]["headers"]["Authorization"]
        .as_str()
        .unwrap();
    assert!(
        authorization.contains(&format!("Credential={}/", serial(&web.scene))),
        "{authorization}"
    );

    // One that is not valid yet is used from then on, and is no fault until then.
    let third = serial(&web.scene);
    let mut tomorrow = LeafSpec::new("web");
    tomorrow.not_before = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(9);
    let valid = tomorrow.not_before;
    let tomorrow = issue_as(&web, &path("web.pem"), &tomorrow);
    under_load(&web, |_| {
        fs::write(path("two/web.pem"), tomorrow).unwrap();
        web.until_serial(|serial| serial != third);
    });
    assert!(jiff::Timestamp::now() >= valid - jiff::SignedDuration::from_secs(1));
    let log = web.agent.process().log();
    assert!(!log.contains("not valid before"), "{log}");
}

/// The token stays open, and when it is lost its certificate is read from where it is now.
#[test]
fn a_certificate_may_move() {
    let lab = Lab::new(KeyKind::EcP256);
    let mut config = lab.config.clone();
    let web = lab.start();
    let first = serial(&web.scene);
    let moved = web.scene.path("moved.pem");
    fs::write(&moved, issue(&web, &web.scene.path("web.pem"))).unwrap();
    config.identity[0].certificate = moved;
    web.reload(&config);
    web.until_serial(|serial| serial != first);
    let second = serial(&web.scene);
    fs::remove_file(web.scene.path("web.pem")).unwrap();
    let programs = token_programs(&web.agent);
    for program in &programs {
        let program = rustix::process::Pid::from_raw(*program).unwrap();
        rustix::process::kill_process(program, rustix::process::Signal::KILL).unwrap();
    }
    let signed = sign(&web.scene.socket(), request(&web.scene));
    assert_eq!(signed.get("error"), None, "{signed}");
    assert_ne!(token_programs(&web.agent), programs);
    assert_eq!(serial(&web.scene), second);
    let log = web.agent.process().log();
    assert!(!log.contains("not renewed"), "{log}");
}

/// A refused PIN is tried again only if it is another one; however often somebody reloads.
#[test]
fn a_mended_pin_is_tried_and_the_same_one_is_not() {
    let lab = Lab::new(KeyKind::EcP256);
    lab.scene.write("lab.pin", "00000000").unwrap();
    let mut lab = lab;
    let good = lab.scene.add_token("good").unwrap();
    let good = lab.scene.add_identity(&good, "good", KeyKind::EcP256);
    lab.config.identity.push(good.unwrap());
    let mut config = lab.config.clone();
    config.pkcs11_module = hsm_fixtures::SoftHsm::spy_module().unwrap();
    let mut other = config.clone();
    other.identity[0].sessions = Some(1); // a token program of its own
    let mut without = config.clone();
    without.identity.remove(0);
    let web = lab.start_spied();
    let refused =
        |reply: Value| assert_eq!(reply["error"], "org.roleseal.Agent.PinRejected", "{reply}");
    let ask = || sign(&web.scene.socket(), request(&web.scene));
    refused(ask());
    for config in [&config, &other, &config] {
        web.reload(&without); // the token is forgotten, and its PIN is not
        web.reload(config);
        refused(ask());
        // Also one that was written anew.
        web.scene.write("lab.pin", "00000000\n").unwrap();
        web.reload(config);
        refused(ask());
    }
    // That one, and the other token's.
    assert_eq!(logins(&web), 2);
    web.scene.write("lab.pin", "00000001").unwrap();
    web.reload(&config);
    refused(ask());
    assert_eq!(logins(&web), 3);
    web.scene.write("lab.pin", hsm_fixtures::PIN).unwrap();
    web.reload(&config);
    let signed = until("the right PIN is tried", || {
        let reply = ask();
        reply.get("error").is_none().then_some(reply)
    });
    assert!(signed["parameters"]["headers"]["Authorization"].is_string());
    assert_eq!(logins(&web), 4);
    let listed = call(&web.scene.socket(), "ListIdentities", json!({}));
    assert_eq!(listed["parameters"]["identities"][0]["state"], "ready");
}
