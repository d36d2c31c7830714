//! Tries, proxies, CAs, clocks.

use std::fs;

use crate::*;

#[test]
fn what_passes_is_tried_again_with_a_new_signature() {
    let scene = Scene::new();
    let agent = scene.agent(SIGNED);
    let service = scene.service_in_turn(&[
        ("503 Service Unavailable", "", "<html>"),
        ("429 Too Many Requests", "", "{}"),
        ("500 Internal Server Error", "", "{}"),
        ("201 Created", "", &SESSION[..90]), // and no more: the length was for all of it
        ("201 Created", "", SESSION),
    ]);
    let output = scene.session(&["--endpoint", &service.url]);
    assert_eq!(exit(&output), 0, "{output:?}");
    assert!(text(&output.stdout).contains("ASIA1"));
    for _ in 0..5 {
        service.requests.next();
        agent.next();
    }
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    for status in [400, 403, 404, 201, 302] {
        let scene = Scene::new();
        let agent = scene.agent(SIGNED);
        let service = scene.service(&format!("{status} Whatever"), "", "{}");
        let output = scene.session(&["--endpoint", &service.url]);
        assert_eq!(exit(&output), 6, "{output:?}");
        assert!(!text(&output.stderr).contains("tried"), "{output:?}");
        service.requests.next();
        agent.next();
        assert!(service.requests.0.try_recv().is_err() && agent.0.try_recv().is_err());
    }
}

#[test]
fn a_clock_that_is_off_is_named_in_seconds() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let date = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let service = scene.service("403 Forbidden", date, r#"{"message":"Signature expired"}"#);
    let output = scene.session(&["--endpoint", &service.url]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("Signature expired"), "{stderr}");
    assert!(stderr.contains(" s ahead of AWS's"), "{stderr}");
}

#[test]
fn a_proxy_is_a_tunnel_that_sees_no_request() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let service = scene.service("201 Created", "", SESSION);
    let host = service.url.strip_prefix("https://").unwrap().to_owned();
    let (proxy, seen) = proxy("200 OK");
    let url = format!("http://us%40er:s3cret@{proxy}");
    let endpoint = ["--endpoint", service.url.as_str()];
    let output = scene.session(&[&endpoint[..], &["--proxy", &url]].concat());
    assert_eq!(exit(&output), 0, "{output:?}");
    let head = seen.next();
    assert!(
        head.starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")),
        "{head}"
    );
    let basic = "Proxy-Authorization: Basic dXNAZXI6czNjcmV0\r\n"; // us@er:s3cret
    assert!(head.contains(basic), "{head}");
    assert!(
        !head.contains("sessions") && !head.contains("Authorization: AWS4"),
        "{head}"
    );

    // From the environment, unless the host is excepted or the target says otherwise.
    let run = |no_proxy: &str, more: &[&str]| {
        let mut command = scene.roleseal(&["credential-process", ROLE, PROFILE, ANCHOR]);
        command
            .args(endpoint)
            .args(more)
            .arg("--ca-bundle")
            .arg(scene.path("ca.pem"));
        command.env("https_proxy", &url).env("no_proxy", no_proxy);
        assert_eq!(exit(&command.output().unwrap()), 0);
        seen.0.try_recv().is_ok()
    };
    assert!(run("example.com", &[]));
    assert!(!run("localhost", &[]));
    assert!(!run("", &["--proxy=none"]));
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    for (status, tries) in [("407 Proxy Authentication Required", 1), ("503 Busy", 5)] {
        let scene = Scene::new();
        let _agent = scene.agent(SIGNED);
        let (proxy, seen) = proxy(status);
        let url = format!("http://user:s3cret@{proxy}");
        let output = scene.session(&["--endpoint=https://aws.example", "--proxy", &url]);
        assert_eq!(exit(&output), 7, "{output:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(&format!("through the proxy http://{proxy}")),
            "{stderr}"
        );
        assert!(
            stderr.contains(&status[..3]) && !stderr.contains("s3cret"),
            "{stderr}"
        );
        (0..tries).for_each(|_| drop(seen.next()));
        assert!(seen.0.try_recv().is_err());
    }
}

#[test]
fn a_proxy_that_breaks_off_is_tried_again() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let (proxy, seen) = silent_proxy();
    let proxy = format!("http://{proxy}");
    let output = scene.session(&["--endpoint=https://aws.example", "--proxy", &proxy]);
    assert_eq!(exit(&output), 7, "{output:?}");
    assert!(!text(&output.stderr).contains("password"), "{output:?}");
    (0..5).for_each(|_| drop(seen.next()));
}

#[test]
fn a_proxy_that_programs_would_read_differently_is_refused() {
    let scene = Scene::new(); // no agent: to ask it would be exit code 3
    let (proxy, seen) = silent_proxy();
    for url in [
        format!("http://{proxy}#s3cret@proxy.example:3128"),
        format!("http://corp:s3cret#x@{proxy}"),
        format!("http://corp:s3cret/x@{proxy}"),
        format!("http://corp:s3cret?x@{proxy}"),
        format!("http://corp:s3cret@x@{proxy}"),
    ] {
        let mut command = scene.roleseal(&["credential-process", ROLE, PROFILE, ANCHOR]);
        let output = command.env("HTTPS_PROXY", &url).output().unwrap();
        assert_eq!(exit(&output), 2, "{output:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains("HTTPS_PROXY") && !stderr.contains("s3cret"),
            "{stderr}"
        );
    }
    assert!(seen.0.try_recv().is_err());
}

#[test]
fn a_server_of_another_ca_is_not_trusted() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let service = scene.service("201 Created", "", SESSION);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(scene.path("ca.pem"), other.cert.pem()).unwrap();
    let output = scene.session(&["--endpoint", &service.url]);
    assert_eq!(exit(&output), 7, "{output:?}");
    assert!(text(&output.stderr).contains("--ca-bundle"), "{output:?}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn the_ca_bundle_may_come_from_the_environment() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let service = scene.service("201 Created", "", SESSION);
    let output = scene
        .roleseal(&["credential-process", ROLE, PROFILE, ANCHOR])
        .args(["--endpoint", &service.url])
        .env("AWS_CA_BUNDLE", scene.path("ca.pem"))
        .env("HTTPS_PROXY", "http://localhost:1")
        .env("NO_PROXY", "localhost")
        .output()
        .unwrap();
    assert_eq!(exit(&output), 0, "{output:?}");
}

#[test]
fn nobody_at_the_endpoint_is_a_network_error() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let url = "https://localhost:1"; // tcpmux's port: a free one could become another test's
    let output = scene.session(&["--endpoint", url]);
    assert_eq!(exit(&output), 7, "{output:?}");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains(url) && stderr.contains("tried 5 times"),
        "{stderr}"
    );
}
