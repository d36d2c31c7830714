use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use hsm_fixtures::{command, programs};
use serde_json::Value;

use crate::agent::{json_of, venv};

/// Every region of every partition, with each variant: where roleseal sends CreateSession is where botocore would.
#[test]
fn endpoints_are_those_of_botocore() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("endpoints.py");
    let botocore = json_of(&Command::new(venv("python")).arg(script).output().unwrap());
    let cases = botocore.as_array().unwrap();
    let partitions: std::collections::BTreeSet<_> = cases
        .iter()
        .map(|case| case["partition"].to_string())
        .collect();
    assert!(
        partitions.len() >= 8 && cases.len() >= 180,
        "{partitions:?}"
    );

    let mut text = String::new();
    for (number, case) in cases.iter().enumerate() {
        let (partition, region) = (
            case["partition"].as_str().unwrap(),
            case["region"].as_str().unwrap(),
        );
        let arn = format!("arn:{partition}:rolesanywhere:{region}:123456789012");
        writeln!(
            text,
            "[target.t{number}]\nrole-arn = \"arn:{partition}:iam::123456789012:role/web\"\n\
             profile-arn = \"{arn}:profile/p\"\ntrust-anchor-arn = \"{arn}:trust-anchor/a\"\n\
             fips = {}\ndual-stack = {}",
            case["fips"], case["dualStack"]
        )
        .unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("targets.toml");
    std::fs::write(&file, text).unwrap();
    let mut roleseal = Command::new(programs::roleseal().unwrap());
    roleseal
        .env_clear()
        .args(["targets", "--json", "--targets"])
        .arg(file);
    let targets: Value = serde_json::from_slice(&command::output(&mut roleseal).unwrap()).unwrap();

    for (number, case) in cases.iter().enumerate() {
        let name = format!("t{number}");
        let target = targets
            .as_array()
            .unwrap()
            .iter()
            .find(|target| target["name"] == name);
        assert_eq!(target.unwrap()["endpoint"], case["url"], "{case}");
    }
}
