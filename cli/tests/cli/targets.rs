//! Targets files.

use std::fs;

use crate::*;

#[test]
fn a_target_of_the_users_file_needs_no_options() {
    let scene = Scene::new();
    let agent = scene.agent(SIGNED);
    let service = scene.service("201 Created", "", SESSION);
    let setting = |option: &str| {
        let (name, value) = option.trim_start_matches('-').split_once('=').unwrap();
        format!("{name} = {value:?}\n")
    };
    let file = [
        "[target.web]\nidentity = \"web\"\nsession-duration = \"2h\"\n".to_owned(),
        setting(ROLE),
        setting(PROFILE),
        setting(ANCHOR),
        format!("endpoint = {:?}\n", service.url),
        format!("ca-bundle = {:?}\n", scene.path("ca.pem")),
        format!("socket = {:?}\n", scene.path("agent.sock")),
    ];
    fs::create_dir_all(scene.path(".config/roleseal")).unwrap();
    fs::write(scene.path(".config/roleseal/targets.toml"), file.concat()).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = scene.roleseal(arguments);
        command
            .env_remove("ROLESEAL_SOCKET")
            .env("HOME", scene.path(""));
        command.output().unwrap()
    };
    let output = run(&["credential-process", "--target", "web"]);
    assert_eq!(exit(&output), 0, "{output:?}");
    assert!(agent.next().contains(r#"\"durationSeconds\":7200"#));
    let output = run(&["env", "--target=web", "--session-duration=15m"]);
    assert!(text(&output.stdout).starts_with("export AWS_ACCESS_KEY_ID='ASIA1'\n"));
    assert!(agent.next().contains(r#"\"durationSeconds\":900"#));

    let output = run(&["targets", "--json"]);
    let targets: serde_json::Value = text(&output.stdout).parse().unwrap();
    assert_eq!(targets[0]["endpoint"], service.url.as_str());
    assert_eq!(targets[0]["sessionDuration"], 7200);
    assert!(text(&run(&["targets"]).stdout).contains("web   web"));

    let output = run(&["credential-process", "--target", "wep"]);
    assert_eq!(exit(&output), 2, "{output:?}");
    assert!(
        text(&output.stderr).contains("hint: there are: web"),
        "{output:?}"
    );
    fs::write(scene.path("bad.toml"), "[target.web]\n\nrole = 7\n").unwrap();
    let bad = scene.path("bad.toml").display().to_string();
    let output = run(&["credential-process", "--target=web", "--targets", &bad]);
    assert_eq!(exit(&output), 2, "{output:?}");
    let place = format!("{bad}:3: unknown field `role`");
    assert!(text(&output.stderr).contains(&place), "{output:?}");
}
