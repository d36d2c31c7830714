use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use hsm_fixtures::{Agent, BATCH_ROLE_ARN, KeyKind, PIN, WEB_ROLE_ARN};
use serde_json::{Value, json};

use crate::agent::{Lab, Web, copy_program, json_of, request, sign, until};
use crate::others::{Caller, error_of};

/// The usual agent, with its log in that format.
fn start(format: &str) -> Web {
    let Lab { scene, config } = Lab::new(KeyKind::EcP256);
    let text = config.to_toml().unwrap();
    let file = scene.write("agent.toml", &text).unwrap();
    let mut command = scene.agent_command(&file).unwrap();
    command.args(["--log-format", format]);
    let log = scene.path("agent.log");
    let agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
    Web { agent, scene }
}

/// An agent whose standard error is a FIFO, with `more` in its configuration; and the end to read it from.
pub(crate) fn start_with_fifo(lab: Lab, more: &str, arguments: &[&str]) -> (Web, File) {
    let Lab { scene, config } = lab;
    let text = config.to_toml().unwrap() + more;
    let file = scene.write("agent.toml", &text).unwrap();
    let fifo = scene.path("log.fifo");
    let mut mkfifo = Command::new("mkfifo");
    hsm_fixtures::command::output(mkfifo.arg(&fifo)).unwrap();
    // Opened for reading without waiting for the writer; read in the ordinary way.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(&fifo)
        .unwrap();
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).unwrap();
    let agent = scene.agent_command(&file).unwrap();
    let mut shell = scene.command("sh");
    shell
        .args(["-c", "exec 2>\"$0\"; exec \"$@\""])
        .arg(&fifo)
        .arg(agent.get_program())
        .args(agent.get_args())
        .args(arguments);
    let log = scene.path("agent.log");
    let agent = Agent::start(shell, &scene.socket(), &log, || false).unwrap();
    (Web { agent, scene }, reader)
}

/// The lines of the log, once `count` requests were decided.
fn lines(web: &Web, count: usize) -> Vec<String> {
    until("the log is complete", || {
        let log = web.agent.process().log();
        let decided = |line: &&str| line.contains("signed") || line.contains("refused");
        let complete = log.lines().filter(decided).count() >= count && log.ends_with('\n');
        complete.then(|| log.lines().map(str::to_owned).collect())
    })
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// One request that is signed and four that are not, each for another reason. Returns the signature.
fn decide(web: &Web) -> String {
    let socket = web.scene.socket();
    let mut base = request(&web.scene);
    base["body"] = json!(r#"{"durationSeconds":900,"roleSessionName":"nightly"}"#);
    let signed = sign(&socket, base.clone());
    let authorization = &signed["parameters"]["headers"]["Authorization"];
    let signature = authorization.as_str().unwrap().split("Signature=").nth(1);

    let change = |member: &str, value: String| {
        let mut request = base.clone();
        request[member] = value.into();
        let reply = sign(&socket, request);
        assert!(reply["error"].is_string(), "{reply}");
    };
    let query = base["query"].as_str().unwrap();
    change("query", query.replace("web-deploy", "batch-nightly"));
    change("query", query.replace("profileArn", "%1B[2Jprofile"));
    change("identity", HOSTILE.to_owned());
    change("host", HOSTILE.to_owned());
    signature.unwrap().to_owned()
}

const DECIDED: usize = 5;

const HOSTILE: &str = "x\nsigned identity=web uid=0 \u{1b}[2J\u{202e}\u{9b}\u{2028}\"";

/// The keys of a decision, with their types, as docs/audit.md has them.
fn documented_keys() -> BTreeMap<String, String> {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, after) = docs.split_once("| key | type | meaning |\n").unwrap();
    after
        .lines()
        .skip(1)
        .map_while(|row| row.strip_prefix("| `"))
        .map(|row| {
            let (key, rest) = row.split_once("` | ").unwrap();
            let kind = rest.split(" | ").next().unwrap();
            (key.to_owned(), kind.to_owned())
        })
        .collect()
}

#[test]
fn a_decision_has_the_documented_keys() {
    let web = start("json");
    decide(&web);
    let lines: Vec<Value> = lines(&web, DECIDED)
        .iter()
        .map(|line| parse(line))
        .collect();
    let documented = documented_keys();
    assert_eq!(documented.len(), 23);
    let decisions: Vec<&Value> = lines
        .iter()
        .filter(|line| line["event"] == "decision")
        .collect();
    assert_eq!(decisions.len(), DECIDED);
    for decision in &decisions {
        let keys: Vec<&String> = decision.as_object().unwrap().keys().collect();
        assert_eq!(keys, documented.keys().collect::<Vec<_>>());
        for (key, kind) in &documented {
            let value = &decision[key];
            let fits = match kind.as_str() {
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "string or null" => value.is_string() || value.is_null(),
                "integer or null" => value.is_u64() || value.is_null(),
                other => panic!("{other}"),
            };
            assert!(fits, "{key} is no {kind}: {decision}");
        }
    }

    let [signed, batch, _, nobody, _] = decisions[..] else {
        panic!()
    };
    let own = rustix::process::getpid().as_raw_nonzero();
    let executable = std::env::current_exe().unwrap();
    for (key, expected) in [
        ("level", json!("info")),
        ("decision", json!("signed")),
        ("identity", json!("web")),
        ("uid", json!(rustix::process::getuid().as_raw())),
        ("gid", json!(rustix::process::getgid().as_raw())),
        ("pid", json!(own.get())),
        ("executable", json!(executable)),
        ("role", json!(WEB_ROLE_ARN)),
        ("region", json!("eu-central-1")),
        ("session", json!("nightly")),
        ("duration", json!(900)),
        ("reason", Value::Null),
        ("message", Value::Null),
    ] {
        assert_eq!(signed[key], expected, "{key}");
    }
    let ready = lines.iter().find(|line| line["event"] == "ready").unwrap();
    assert_eq!(signed["serial"], ready["serial"]);
    let (token, total) = (&signed["token_us"], &signed["total_us"]);
    assert!(token.as_u64() > Some(0) && token.as_u64() <= total.as_u64());

    assert_eq!(batch["reason"], "NotPermitted");
    assert_eq!(batch["role"], BATCH_ROLE_ARN);
    assert!(batch["message"].as_str().unwrap().contains("role"));
    assert_eq!(
        (&batch["serial"], &batch["token_us"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(nobody["reason"], "IdentityNotFound");
    assert_eq!(nobody["identity"], Value::Null);
}

#[test]
fn text_has_the_same_facts_and_nothing_forges_a_line() {
    let web = start("text");
    decide(&web);
    // A program may have any name.
    let program = web.scene.path("x\nsigned identity=web \u{1b}[2J\u{202e}");
    let cli = web.credential_process();
    copy_program(cli.get_program(), &program);
    let mut command = web.scene.command(&program);
    json_of(&command.args(cli.get_args()).output().unwrap());
    let decided = DECIDED + 1;
    let lines = lines(&web, decided);
    let decisions: Vec<&str> = lines
        .iter()
        .filter_map(|line| Some(line.split_once("Z ")?.1))
        .filter(|line| line.starts_with("signed ") || line.starts_with("refused "))
        .collect();
    assert_eq!(decisions.len(), decided, "{lines:#?}");
    let keys = documented_keys();
    let elsewhere = ["time", "level", "event", "decision"];
    let unknown = ["reason", "message", "unit", "container"]; // the latter two on some hosts
    let known = |key: &&String| ![elsewhere, unknown].concat().contains(&key.as_str());
    for key in keys.keys().filter(known) {
        let signed = decisions[0];
        assert!(signed.contains(&format!(" {key}=")), "{key}: {signed}");
    }
    assert!(decisions[1].starts_with("refused reason=NotPermitted message=\""));
    for line in &lines {
        assert!(line.starts_with("20"), "{line}");
        let harmless = |c: char| !c.is_control() && !"\u{202e}\u{2028}".contains(c);
        assert!(line.chars().all(harmless), "{line:?}");
    }
}

#[test]
fn no_secret_is_in_the_log() {
    for format in ["text", "json"] {
        let web = start(format);
        let credentials = json_of(&web.credential_process().output().unwrap());
        let signature = decide(&web);
        let secrets = ["AccessKeyId", "SecretAccessKey", "SessionToken"]
            .map(|name| credentials[name].as_str().unwrap());
        let log = lines(&web, DECIDED + 1).join("\n");
        for secret in secrets.into_iter().chain([PIN, &signature]) {
            assert!(
                secret.len() >= 8 && !log.contains(secret),
                "{secret}: {log}"
            );
        }
    }
}

/// Requests that take much room in the log: 2 KB each.
fn refused(web: &Web) -> Value {
    let mut request = request(&web.scene);
    let query = request["query"].as_str().unwrap();
    let long = format!("{}-batch", "long%2F".repeat(100));
    request["query"] = query.replace("web-deploy", &long).into();
    request
}

#[test]
fn a_reader_that_hangs_stops_nothing_and_is_told_what_it_missed() {
    let lab = Lab::new(KeyKind::EcP256);
    let (web, reader) = start_with_fifo(lab, "", &["--log-format", "json"]);
    let (refused, good) = (refused(&web), request(&web.scene));
    let (many, more) = (1000, 3000); // 3,000 lines have twice the size of the queue
    let mut caller = Caller::new(&web.scene.socket());
    let mut ask = |request: &Value| {
        caller
            .call("org.roleseal.Agent.SignCreateSession", request)
            .unwrap()
    };
    for _ in 0..many {
        assert_eq!(error_of(&ask(&refused)), "NotPermitted");
    }
    for _ in 0..more {
        assert_eq!(error_of(&ask(&good)), "");
    }

    // Now it reads again.
    let (mut signed, mut in_full, mut counted, mut lost) = (0, 0, 0, 0);
    for line in BufReader::new(reader).lines() {
        let line = parse(&line.unwrap());
        match (line["event"].as_str().unwrap(), line["decision"].as_str()) {
            ("decision", Some("signed")) => signed += 1,
            ("decision", _) => in_full += 1,
            ("repeated", _) => {
                assert_eq!(line["uid"], rustix::process::getuid().as_raw());
                assert_eq!(line["reasons"]["NotPermitted"], line["refused"]);
                counted += line["refused"].as_u64().unwrap();
            }
            ("lost", _) => lost += line["lines"].as_u64().unwrap(),
            _ => {}
        }
        if signed + lost == more && in_full + counted == many {
            break;
        }
    }
    assert!(lost > 0 && signed > 0, "{signed} {lost}");
    assert!(in_full > 0 && counted > 0, "{in_full} {counted}");
}

#[test]
fn without_a_reader_it_signs_and_ends() {
    for hangs in [true, false] {
        let (web, reader) = start_with_fifo(Lab::new(KeyKind::EcP256), "", &[]);
        let reader = hangs.then_some(reader); // or it is closed
        let (socket, refused) = (web.scene.socket(), refused(&web));
        for _ in 0..100 {
            sign(&socket, refused.clone()); // the FIFO takes 64 KB
        }
        json_of(&web.credential_process().output().unwrap());
        web.agent.stop().unwrap();
        drop(reader);
    }
}

/// What an agent writes that cannot start, when its standard error is the file and the journal is where
/// `JOURNAL_STREAM` says.
fn failure(web: &Web, file: &Path, journal: &str) -> String {
    let stderr = File::create(file).unwrap();
    let mut command = web.scene.agent_command(&web.scene.path("absent")).unwrap();
    let status = command
        .args(["--log-format", "json"])
        .env("JOURNAL_STREAM", journal)
        .stderr(Stdio::from(stderr))
        .status();
    assert_eq!(status.unwrap().code(), Some(78));
    fs::read_to_string(file).unwrap()
}

#[test]
fn the_journal_gets_priorities_and_nobody_else() {
    let web = start("json");
    let file = web.scene.path("stderr");
    let elsewhere = failure(&web, &file, "1:1");
    let line = parse(&elsewhere);
    assert_eq!(line["level"], "error");
    assert!(line["message"].as_str().unwrap().contains("absent"));

    let metadata = fs::metadata(&file).unwrap();
    let journal = format!("{}:{}", metadata.dev(), metadata.ino());
    let text = failure(&web, &file, &journal);
    parse(text.strip_prefix("<3>").unwrap());
}
