use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use hsm_fixtures::{Agent, KeyKind, LimitsConfig};
use serde_json::{Value, json};

use crate::agent::{Lab, Web, as_this_user, call_on, connect_as, log_with, request, sign};
use crate::enroll_users::install;

/// Users that no host has.
const STRANGER: u32 = 4_000_001;
const INSIDER: u32 = 4_000_002;
const GROUP: u32 = 4_000_003;

/// What the kernel says of whoever has no number in the agent's user namespace.
const UNMAPPED: u32 = 65_534;

/// Two identities: `web` for this user and the insider, `other` for this user.
fn start() -> Web {
    let mut lab = Lab::new(KeyKind::EcP256);
    let mut other = lab.config.identity[0].clone();
    other.name = "other".to_owned();
    lab.config.identity.push(other);
    lab.config.identity[0].allow[0].users.push(INSIDER);
    // What is refused for its rate alone tells nothing.
    lab.config.limits = Some(LimitsConfig {
        requests_per_second_unnamed: Some(1000),
        ..LimitsConfig::default()
    });
    lab.start()
}

/// Calls for an identity that a caller may make, good and bad: method and parameters.
fn attempts(web: &Web, identity: Option<&str>) -> Vec<(&'static str, Value)> {
    let mut good = request(&web.scene);
    match identity {
        Some(name) => good["identity"] = name.into(),
        None => _ = good.as_object_mut().unwrap().remove("identity"),
    }
    let changed = |member: &str, value: &str| {
        let mut request = good.clone();
        request[member] = value.into();
        request
    };
    let requests = [
        good.clone(),
        changed("query", "profileArn=x"),
        changed(
            "query",
            &good["query"].as_str().unwrap().replace("web", "batch"),
        ),
        changed("body", "{"),
        changed("contentType", "text/plain"),
        changed("region", "nowhere"),
        changed("host", "example.com"),
    ];
    let methods = ["SignCreateSession", "MayCreateSession"];
    let sessions = methods.into_iter().flat_map(|method| {
        let of_method = |request: &Value| (method, request.clone());
        requests.iter().map(of_method).collect::<Vec<_>>()
    });
    let certificate = json!({ "identity": identity });
    sessions.chain([("GetCertificate", certificate)]).collect()
}

#[test]
fn a_stranger_gets_the_same_answer_to_everything() {
    if as_root::by_sudo!() {
        return;
    }
    let web = start();
    let mut stranger = connect_as(&web.scene, STRANGER, GROUP);
    let first = call_on(&mut stranger, "SignCreateSession", request(&web.scene));
    assert_eq!(first["error"], "org.roleseal.Agent.NotPermitted");
    assert_eq!(first["parameters"]["rule"], "caller");
    let attempts = [Some("web"), Some("other"), Some("absent"), Some(""), None]
        .into_iter()
        .flat_map(|identity| attempts(&web, identity));
    let malformed = [
        ("SignCreateSession", json!({ "identity": "web" })),
        (
            "MayCreateSession",
            json!({ "identity": "absent", "host": 7 }),
        ),
        ("GetCertificate", json!({ "name": "web" })),
        ("ListIdentities", json!({ "name": "web" })),
    ];
    for (method, parameters) in attempts.chain(malformed) {
        let reply = call_on(&mut stranger, method, parameters.clone());
        assert_eq!(reply, first, "{method} {parameters}");
    }
    let listed = call_on(&mut stranger, "ListIdentities", json!({}));
    assert_eq!(listed["parameters"]["identities"], json!([]));
    // The log has what the stranger may not know.
    let log = log_with(&web.agent, "identity=other");
    assert!(log.contains("refused reason=NotPermitted"), "{log}");
}

/// One who may use one identity is a stranger to the others.
#[test]
fn an_insider_of_one_identity_learns_nothing_of_the_others() {
    if as_root::by_sudo!() {
        return;
    }
    let web = start();
    let mut insider = connect_as(&web.scene, INSIDER, GROUP);
    let signed = call_on(&mut insider, "SignCreateSession", request(&web.scene));
    assert!(signed["error"].is_null(), "{signed}");
    let mut replies = Vec::new();
    for identity in ["other", "absent"] {
        for (method, parameters) in attempts(&web, Some(identity)) {
            replies.push(call_on(&mut insider, method, parameters));
        }
    }
    assert_eq!(replies[0]["error"], "org.roleseal.Agent.NotPermitted");
    replies.dedup();
    assert_eq!(replies.len(), 1, "{replies:#?}");
    // The owner of all identities is told more.
    let mut absent = request(&web.scene);
    absent["identity"] = "absent".into();
    let reply = sign(&web.scene.socket(), absent);
    assert_eq!(reply["error"], "org.roleseal.Agent.IdentityNotFound");
}

/// The configuration of the usual scene with these rules in the place of its own.
pub(crate) fn with_rules(lab: &Lab, rules: &str) -> String {
    let mut config = lab.config.clone();
    config.identity[0].allow.clear();
    let text = config.to_toml().unwrap();
    text.replace("allow = []\n", "") + "\n[[identity.allow]]\n" + rules
}

/// An agent with these rules in a user namespace of its own, which has root and nobody else.
fn in_namespace(lab: Lab, rules: &str) -> Web {
    let file = lab
        .scene
        .write("agent.toml", &with_rules(&lab, rules))
        .unwrap();
    let agent = lab.scene.agent_command(&file).unwrap();
    // Its root may not go through a directory of a user whom it does not have.
    let program = install(&lab.scene).join("roleseal-agent");
    let mut command: Command = lab.scene.command("unshare");
    command
        .args(["--user", "--map-root-user"])
        .arg(program)
        .args(agent.get_args());
    let (socket, log) = (lab.scene.socket(), lab.scene.path("agent.log"));
    Web {
        agent: Agent::start(command, &socket, &log, || false).unwrap(),
        scene: lab.scene,
    }
}

fn rule_that_refuses(web: &Web, uid: u32, gid: u32) -> Value {
    let mut stream = connect_as(&web.scene, uid, gid);
    let reply = call_on(&mut stream, "SignCreateSession", request(&web.scene));
    reply["parameters"]["rule"].clone()
}

#[test]
fn who_has_no_number_in_the_agents_user_namespace_is_not_everyone() {
    if as_root::by_sudo!() {
        return;
    }
    let mut probe = std::process::Command::new("unshare");
    if !probe.args(["--user", "true"]).status().unwrap().success() {
        eprintln!("no user namespaces here, as in a chroot: not tested");
        return;
    }
    let lab = Lab::new(KeyKind::EcP256);
    let number = with_rules(&lab, &format!("users = [{UNMAPPED}]\n"));
    let web = in_namespace(lab, "users = [\"*\"]\n");
    assert_eq!(rule_that_refuses(&web, STRANGER, GROUP), "caller");
    assert_eq!(rule_that_refuses(&web, STRANGER, 0), "caller");
    let log = log_with(&web.agent, "refused ");
    assert!(log.contains(&format!("uid={UNMAPPED}")), "{log}"); // it is as the kernel says
    assert_eq!(rule_that_refuses(&web, 0, GROUP), Value::Null);
    web.reload_text(&number);
    assert_eq!(rule_that_refuses(&web, STRANGER, GROUP), Value::Null);
}

/// A process that is in a user namespace without a number of its own is not the agent's own user, or in a group of
/// that name, either.
#[test]
fn nobody_is_matched_by_the_number_alone() {
    if as_root::by_sudo!() {
        return;
    }
    let lab = Lab::new(KeyKind::EcP256);
    let named = with_rules(
        &lab,
        "users = [\"nobody\", \"*\"]\ngroups = [\"nogroup\", 4000003]\n",
    );
    let numbers = [
        (format!("users = [{UNMAPPED}]\n"), true, false),
        (format!("groups = [{UNMAPPED}]\n"), true, true),
    ];
    let numbers = numbers.map(|(rules, user, group)| (with_rules(&lab, &rules), user, group));
    let web = lab.start();
    web.reload_text(&named);
    assert_eq!(rule_that_refuses(&web, UNMAPPED, UNMAPPED), "caller");
    assert_eq!(rule_that_refuses(&web, UNMAPPED, GROUP), "caller");
    assert_eq!(rule_that_refuses(&web, STRANGER, UNMAPPED), Value::Null); // it is everyone
    log_with(&web.agent, "\"nobody\"");
    log_with(&web.agent, "\"nogroup\"");
    let warned = check(&web, &web.scene.path("agent.toml"));
    assert!(
        warned.contains("nobody") && warned.contains("nogroup"),
        "{warned}"
    );
    for (text, user, group) in numbers {
        web.reload_text(&text);
        let permitted = |uid, gid| rule_that_refuses(&web, uid, gid).is_null();
        assert_eq!(permitted(UNMAPPED, UNMAPPED), user, "{text}");
        assert_eq!(permitted(STRANGER, UNMAPPED), group, "{text}");
        assert!(!permitted(STRANGER, GROUP), "{text}");
    }
}

/// The warnings of `--check`.
fn check(web: &Web, file: &Path) -> String {
    let mut check = web.scene.agent_command(file).unwrap();
    let output = as_this_user(check.arg("--check")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// An agent that runs as nobody without rules serves nobody: its own user may be anyone.
#[test]
fn an_agent_that_runs_as_nobody_has_no_own_user() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.pkcs11_module = hsm_fixtures::SoftHsm::module().unwrap();
    lab.config.identity[0].allow.clear();
    let programs = crate::enroll_users::install(&lab.scene);
    let text = lab.config.to_toml().unwrap();
    let file = lab.scene.write("agent.toml", &text).unwrap();
    crate::enroll_users::give_to_nobody(lab.scene.dir());
    let mut agent = lab.scene.command(programs.join("roleseal-agent"));
    agent.arg("--config").arg(&file);
    agent.uid(UNMAPPED).gid(UNMAPPED);
    let (socket, log) = (lab.scene.socket(), lab.scene.path("agent.log"));
    let web = Web {
        agent: Agent::start(agent, &socket, &log, || false).unwrap(),
        scene: lab.scene,
    };
    assert_eq!(rule_that_refuses(&web, UNMAPPED, UNMAPPED), "caller");
    let mut nobody = connect_as(&web.scene, UNMAPPED, UNMAPPED);
    let listed = call_on(&mut nobody, "ListIdentities", json!({}));
    assert_eq!(listed["parameters"]["identities"], json!([]));
}
