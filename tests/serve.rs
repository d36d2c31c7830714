use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use hsm_fixtures::Process;
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Web, json_of, until};
use crate::http::{Answer, Http};
use crate::policy::NOBODY;
use crate::serving::{Serving, command, key_of, write_targets};

const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "X-aws-ec2-metadata-token";
const LIST: &str = "/latest/meta-data/iam/security-credentials/";

fn imds_token(http: &mut Http, ttl: &str) -> String {
    let answer = http.request("PUT", "/latest/api/token", &[(TTL, ttl)]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header(&TTL.to_lowercase()), Some(ttl));
    answer.body
}

#[test]
fn instance_metadata_is_what_sdks_read() {
    let serving = Serving::start(Web::start(), &["--imds"]);
    let url = serving.said("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    assert_eq!(url, format!("http://{}", serving.address()));
    let mut http = serving.http();
    let token = imds_token(&mut http, "21600");
    let mut get = |path: &str| http.get(path, &[(TOKEN, &token)]);

    assert_eq!(get(LIST).body, "web-deploy");
    let credentials = get(&format!("{LIST}web-deploy"));
    key_of(&credentials);
    let credentials = credentials.json();
    assert_eq!(credentials["Code"], "Success");
    assert_eq!(credentials["Type"], "AWS-HMAC");
    assert_eq!(credentials["LastUpdated"].as_str().unwrap().len(), 20);
    assert_eq!(
        get("/latest/meta-data/placement/region").body,
        "eu-central-1"
    );
    let zone = get("/latest/meta-data/placement/availability-zone/").body;
    assert_eq!(zone, "eu-central-1a");
    let document = get("/latest/dynamic/instance-identity/document").json();
    assert_eq!(document["region"], "eu-central-1");
    assert_eq!(document["accountId"], "123456789012");
    for unknown in [
        "/latest/meta-data/iam/security-credentials/other",
        "/latest/meta-data/iam/security-credentials-extended/",
        "/latest/user-data",
        "/",
    ] {
        assert_eq!(get(unknown).status, 404, "{unknown}");
    }
    assert_eq!(serving.service().sessions_created(), 1);
}

#[test]
fn instance_metadata_wants_a_token_that_is_valid() {
    let serving = Serving::start(Web::start(), &["--imds"]);
    let mut http = serving.http();
    let path = format!("{LIST}web-deploy");
    for headers in [
        &[][..], // IMDSv1
        &[(TOKEN, "")],
        &[(
            TOKEN,
            "AQAEAGmnHXcIuUA1UADNZoLBhCMnO9tbnuHSOo9v0A5pAqz9Z0UWbw==",
        )],
        &[("Authorization", &serving.token())],
    ] {
        for path in [LIST, &path, "/latest/meta-data/placement/region"] {
            assert_eq!(http.get(path, headers).status, 401, "{headers:?}");
        }
    }
    let short = imds_token(&mut http, "1");
    until("the token ends", || {
        (http.get(LIST, &[(TOKEN, &short)]).status == 401).then_some(())
    });
    for ttl in [
        "0",
        "21601",
        "-1",
        "+1",
        "1.5",
        "",
        "x",
        "99999999999999999999999",
    ] {
        let answer = http.request("PUT", "/latest/api/token", &[(TTL, ttl)]);
        assert_eq!(answer.status, 400, "{ttl}");
    }
    assert_eq!(http.request("PUT", "/latest/api/token", &[]).status, 400);
    assert_eq!(http.get("/latest/api/token", &[(TTL, "60")]).status, 405);

    // One that is not served as instance metadata.
    let other = Serving::start(Web::start(), &[]);
    let answer = other
        .http()
        .request("PUT", "/latest/api/token", &[(TTL, "60")]);
    assert_eq!(answer.status, 404);
}

#[test]
fn a_target_is_for_who_has_its_token() {
    let more = ["--target=second", "--imds=second"];
    let serving = Serving::start(Web::start(), &more);
    let mut http = serving.http();
    let file = serving.said("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let web = serving.token();
    let second = until("there is a second token", || {
        std::fs::read_to_string(file.replace("/web.", "/second.")).ok()
    });
    let mut ask = |target: &str, headers: &[(&str, &str)]| {
        http.get(&format!("/credentials/{target}"), headers)
    };
    let answer = ask("web", &[("Authorization", &web)]);
    let key = key_of(&answer);
    assert_eq!(answer.json().as_object().unwrap().len(), 4);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(key_of(&ask("web", &[("Authorization", &web)])), key);
    assert_ne!(key_of(&ask("second", &[("Authorization", &second)])), key);

    let bearer = format!("Bearer {web}");
    for headers in [
        &[][..],
        &[("Authorization", "")],
        &[("Authorization", second.as_str())],
        &[("Authorization", &web[1..])],
        &[("Authorization", &bearer)],
        &[("Authorization", &web), ("Authorization", &web)],
        &[(TOKEN, &web)],
    ] {
        let answer = ask("web", headers);
        assert_eq!(answer.status, 401, "{headers:?}");
        assert!(!answer.body.contains("AccessKeyId"));
    }
    assert_eq!(ask("third", &[("Authorization", &web)]).status, 404);
    assert_eq!(serving.service().sessions_created(), 2);

    // Another server of the same user knows the same tokens: clients outlive a restart.
    let Serving {
        process,
        web: scene,
    } = serving;
    assert!(process.stop().unwrap().success());
    assert_eq!(Serving::start(scene, &[]).token(), web);
}

/// A program as another user.
fn as_nobody(web: &Web, words: &[&str]) -> Command {
    let mut command = web.scene.command(words[0]);
    command.args(&words[1..]).uid(NOBODY).gid(NOBODY);
    command
}

#[test]
fn another_user_gets_nothing_without_the_token() {
    if as_root::by_sudo!() {
        return;
    }
    let serving = Serving::start(Web::start(), &[]);
    let file = serving.said("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let url = serving.said("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    // The scene's own directory keeps others out already: what is asked here is whether ours does, too.
    let scene = serving.web.scene.dir();
    for open in [scene.to_owned(), scene.join("run")] {
        std::fs::set_permissions(open, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let directory = scene.join("run/roleseal").display().to_string();
    for words in [&["cat", &file][..], &["ls", &directory]] {
        let output = as_nobody(&serving.web, words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("Permission denied"), "{stderr}");
    }
    let curl = ["curl", "-s", "-w", "%{http_code}", "-o", "/dev/null", &url];
    let mut ask = as_nobody(&serving.web, &curl);
    assert_eq!(ask.output().unwrap().stdout, b"401");
    // With the token, who asks does not matter.
    let header = format!("Authorization: {}", serving.token());
    let mut ask = as_nobody(&serving.web, &["curl", "-s", "-H", &header, &url]);
    assert!(json_of(&ask.output().unwrap())["Token"].is_string());
}

#[test]
fn what_a_web_page_or_a_proxy_asks_is_refused() {
    let serving = Serving::start(Web::start(), &["--imds"]);
    let mut http = serving.http();
    let (token, imds) = (serving.token(), imds_token(&mut http, "60"));
    let rebound = format!("evil.example:{}", serving.address().port());
    let requests = [
        ("GET", "/credentials/web", ("Authorization", token.as_str())),
        ("PUT", "/latest/api/token", (TTL, "60")),
        ("GET", LIST, (TOKEN, &imds)),
        ("GET", "/healthz", ("Accept", "*/*")),
    ];
    for (method, path, authority) in requests {
        let mut status = |more| http.request(method, path, &[authority, more]).status;
        assert_eq!(status(("Accept", "*/*")), 200, "{path}");
        assert_eq!(status(("Host", "localhost")), 200, "{path}");
        assert_eq!(status(("Host", "169.254.169.254")), 200, "{path}");
        assert_eq!(status(("Host", &rebound)), 403, "{path}");
        assert_eq!(status(("Host", "")), 403, "{path}");
        assert_eq!(status(("X-Forwarded-For", "127.0.0.1")), 403, "{path}");
        assert_eq!(status(("Forwarded", "for=127.0.0.1")), 403, "{path}");
    }
    let options = http.request("OPTIONS", "/credentials/web", &[("Origin", "https://evil")]);
    assert_eq!(options.status, 405);
    assert_eq!(options.header("access-control-allow-origin"), None);
}

#[test]
fn other_hosts_are_served_only_where_somebody_says_so() {
    let web = Web::start();
    let refused = |arguments: &[&str]| {
        let output = command(&web.scene, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let anywhere = ["--target=web", "--listen=0.0.0.0:0"];
    assert!(refused(&anywhere).contains("--allow-remote"));
    let several = ["--target=web", "--target=second", "--imds"];
    assert!(refused(&several).contains("--imds=NAME"));
    assert!(refused(&["--target=web", "--imds=second"]).contains("--target second"));
    assert!(refused(&["--target=web", "--target=web"]).contains("more than once"));

    let arguments = [
        "--target=web",
        "--listen=0.0.0.0:0",
        "--allow-remote",
        "--imds",
    ];
    let serving = Serving::start_with(web, &arguments);
    let port = serving.address().port();
    let mut near = Http::tcp(([127, 0, 0, 1], port).into());
    let token = serving.token();
    key_of(&near.get("/credentials/web", &[("Authorization", &token)]));
    assert_eq!(near.get("/credentials/web", &[]).status, 401);
}

#[test]
fn a_unix_socket_and_one_from_systemd_serve_the_same() {
    let web = Web::start();
    let path = web.scene.path("serve.sock");
    let own = format!("--listen=unix:{}", path.display());
    let passed = web.scene.path("passed.sock");
    let listener = UnixListener::bind(&passed).unwrap();
    let serve = command(&web.scene, &["--target=web", &own]);
    // As systemd does: the socket as descriptor 3, and two variables that name the process.
    let mut shell = web.scene.command("sh");
    shell
        .args([
            "-c",
            "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
            "sh",
        ])
        .arg(serve.get_program())
        .args(serve.get_args())
        .stdin(std::os::fd::OwnedFd::from(listener));
    let mut running = shell.spawn().unwrap();
    let token = web.scene.path("run/roleseal/web.token");
    until("it serves", || path.exists().then_some(()));
    until("there is a token", || token.exists().then_some(()));
    let token = std::fs::read_to_string(token).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let keys = [&path, &passed].map(|path| {
        key_of(&Http::unix(path).get("/credentials/web", &[("Authorization", &token)]))
    });
    assert_eq!(keys[0], keys[1]);
    let mut status = web.scene.command(serve.get_program());
    status
        .args(["status", "--json", "--listen"])
        .arg(format!("unix:{}", passed.display()))
        .arg("--socket")
        .arg(web.scene.socket());
    let status = json_of(&status.output().unwrap());
    assert_eq!(status["serve"]["status"], "ok");
    assert_eq!(status["serve"]["targets"][0]["served"], 2, "{status}");
    assert_eq!(status["agent"]["identities"][0]["state"], "ready");
    assert_eq!(status["agent"]["identities"][0]["signatures"], 1);

    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.wait().unwrap().success());
    assert!(!path.exists() && passed.exists()); // the latter is systemd's
}

#[test]
fn slow_and_greedy_clients_hold_nobody_up() {
    let serving = Serving::start(Web::start(), &[]);
    let token = serving.token();
    let ask = |http: &mut Http| http.get("/credentials/web", &[("Authorization", &token)]);
    let mut slow = serving.http();
    slow.send("GET /credentials/web HTTP/1.1\r\nHost: loc"); // and no more
    let mut silent = serving.http();
    let mut garbage = serving.http();
    garbage.send("\u{1}\u{2}\r\n\r\n");
    let mut large = serving.http();
    large.send(&format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}",
        "x".repeat(20_000)
    ));
    let mut many = serving.http();
    many.send(&format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X: x\r\n".repeat(100)
    ));
    key_of(&ask(&mut serving.http()));
    let refused = |answer: Option<Answer>| answer.is_none_or(|answer| answer.status >= 400);
    assert!(refused(garbage.read()));
    assert!(refused(large.read()));
    assert!(refused(many.read()));
    // They are sent away after a while.
    assert!(refused(slow.read()));
    assert!(silent.read().is_none());
}

#[test]
fn who_sends_its_end_with_the_request_gets_an_answer() {
    let web = Web::start();
    let agent = Pid::from_raw(web.agent.process().id().try_into().unwrap()).unwrap();
    kill_process(agent, Signal::STOP).unwrap(); // the first session takes long
    let serving = Serving::start(web, &[]);
    let mut stream = TcpStream::connect(serving.address()).unwrap();
    let request = format!(
        "GET /credentials/web HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {}\r\n\r\n",
        serving.token()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let state = serving.state(); // read by the same thread, after the request
    kill_process(agent, Signal::CONT).unwrap();
    assert_eq!(state, "starting");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_slash_at_the_end_of_a_path_does_not_matter() {
    let serving = Serving::start(Web::start(), &["--imds"]);
    let mut http = serving.http();
    let token = serving.token();
    key_of(&http.get("/credentials/web/", &[("Authorization", &token)]));
    assert_eq!(http.get("/healthz/", &[]).status, 200);
    let answer = http.request("PUT", "/latest/api/token/", &[(TTL, "60")]);
    let headers = [(TOKEN, answer.body.as_str())];
    for path in [
        "/latest/meta-data/placement/region/".to_owned(),
        format!("{LIST}web-deploy/"),
        format!("{LIST}/"),
    ] {
        assert_eq!(http.get(&path, &headers).status, 200, "{path}");
    }
}

#[test]
fn answers_take_as_many_hops_as_somebody_says() {
    let usage = |more: &[&str]| {
        let web = Web::start();
        let all = [&["--target=web", "--listen=127.0.0.1:0"], more].concat();
        command(&web.scene, &all).output().unwrap().status.code()
    };
    assert_eq!(usage(&["--imds", "--hop-limit=0"]), Some(2));
    assert_eq!(usage(&["--hop-limit=2"]), Some(2));
    let serving = Serving::start(Web::start(), &["--imds", "--hop-limit=2"]);
    imds_token(&mut serving.http(), "60");
}

#[test]
fn hanging_up_reads_the_targets_again() {
    let serving = Serving::start(Web::start(), &[]);
    let pid = Pid::from_raw(serving.process.id().try_into().unwrap()).unwrap();
    let token = serving.token();
    let get = || {
        let answer = serving
            .http()
            .get("/credentials/web", &[("Authorization", &token)]);
        key_of(&answer)
    };
    let reload = |text: &str, said: &str| {
        serving.web.scene.write("targets.toml", text).unwrap();
        let before = serving.process.log().matches(said).count();
        kill_process(pid, Signal::HUP).unwrap();
        until(said, || {
            (serving.process.log().matches(said).count() > before).then_some(())
        });
    };
    let first = get();
    let targets = std::fs::read_to_string(write_targets(&serving.web.scene)).unwrap();
    reload(&targets, "unchanged");
    reload("[target.web]\nidentity = 7\n", "reload failed");
    assert_eq!(get(), first);
    reload(&targets.replace("3600", "1800"), "reloaded");
    let second = get();
    assert_ne!(second, first);
    assert_eq!(get(), second);
}

#[test]
fn the_end_comes_in_order() {
    let serving = Serving::start(Web::start(), &[]);
    let mut kept = serving.http();
    let token = serving.token();
    key_of(&kept.get("/credentials/web", &[("Authorization", &token)]));
    let Serving { process, web } = serving;
    let log = web.scene.path("serve.log");
    assert!(process.stop().unwrap().success());
    assert!(kept.read().is_none());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.ends_with("roleseal: ending\nroleseal: ended\n"),
        "{log}"
    );
    assert!(log.contains("target web: a session until"), "{log}");
    assert!(!log.contains(&token), "{log}");

    let output = web
        .scene
        .roleseal(&["status", "--listen=127.0.0.1:1"])
        .unwrap()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

/// Without an agent there is no session: that is said, everywhere, and heals by itself.
#[test]
fn a_server_that_starts_first_waits_for_the_agent() {
    let Web { agent, scene } = Web::start();
    let config = scene.path("agent.toml");
    agent.stop().unwrap();
    let log = scene.path("serve.log");
    let serve = command(&scene, &["--target=web", "--listen=127.0.0.1:0"]);
    let process = Process::spawn(serve, &log).unwrap();
    until("it has failed", || {
        process.log().contains("no new session").then_some(())
    });
    let text = process.log();
    assert!(
        text.contains("there is no session") && text.contains("agent.sock"),
        "{text}"
    );
    let command = scene.agent_command(&config).unwrap();
    let agent =
        hsm_fixtures::Agent::start(command, &scene.socket(), &scene.path("again.log"), || false)
            .unwrap();
    let web = Web { agent, scene };
    let serving = Serving { process, web };
    until("it has a session", || {
        (serving.state() == "ok").then_some(())
    });
    let mut http = serving.http();
    let token = serving.token();
    key_of(&http.get("/credentials/web", &[("Authorization", &token)]));
    let address = serving.address().to_string();
    let mut status = serving
        .web
        .scene
        .roleseal(&["status", "--listen", &address, "--socket"])
        .unwrap();
    status.arg(serving.web.scene.socket());
    let output = status.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("web     ok     1       2"),
        "{text}"
    );
}
