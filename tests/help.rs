use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hsm_fixtures::programs;

/// Help of a command and of those below it, each under its command line.
fn help(program: &Path, command: &[&str], text: &mut String) {
    let output = Command::new(program)
        .args(command)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    let help_text = String::from_utf8(output.stdout).unwrap();
    let name = program.file_name().unwrap().to_str().unwrap();
    let line = [&[name], command, &["--help"]].concat().join(" ");
    *text += &format!("$ {line}\n\n{}\n\n", help_text.trim_end());
    for below in commands(&help_text) {
        help(program, &[command, &[below]].concat(), text);
    }
}

/// The names in the list of commands.
fn commands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[track_caller]
fn is_as_written(program: PathBuf) {
    let mut text = String::new();
    help(&program, &[], &mut text);
    let name = program.file_name().unwrap().to_str().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("help/{name}.txt"));
    if std::env::var_os("UPDATE_HELP").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    let differ = text
        .lines()
        .zip(written.lines())
        .find(|(now, then)| now != then);
    assert!(
        text == written,
        "{}: {differ:?}; UPDATE_HELP=1 writes it anew",
        file.display()
    );
}

#[test]
fn roleseal() {
    is_as_written(programs::roleseal().unwrap());
}

#[test]
fn roleseal_admin() {
    is_as_written(programs::admin().unwrap());
}

#[test]
fn roleseal_agent() {
    is_as_written(programs::agent().unwrap());
}

#[test]
fn hsm_fixtures() {
    is_as_written(programs::fixtures().unwrap());
}
