use std::path::PathBuf;
use std::process::Command;

use hsm_fixtures::{Process, Scene};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Web, until};
use crate::serving::{Serving, command, key_of, short_sessions};

/// A clock of a program, which the test sets; of no other.
pub(crate) struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

/// In the place of the C library's: CLOCK is so many seconds ahead as the file says.
const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    long offset = 0;
    FILE *file = clock == CLOCK ? fopen(getenv("CLOCK_OFFSET"), "r") : NULL;
    if (file != NULL) {
        if (fscanf(file, "%ld", &offset) == 1) now->tv_sec += offset;
        fclose(file);
    }
    return result;
}
"#;

impl Clock {
    /// The wall clock.
    pub(crate) fn new(scene: &Scene, offset: i64) -> Clock {
        Clock::of_kind(scene, "CLOCK_REALTIME", offset)
    }

    /// The clock that C calls so.
    pub(crate) fn of_kind(scene: &Scene, kind: &str, offset: i64) -> Clock {
        let source = scene.write("clock.c", SOURCE).unwrap();
        let clock = Clock {
            library: scene.path("clock.so"),
            offset: scene.path("clock.offset"),
        };
        let mut compiler = Command::new("cc");
        compiler.arg(format!("-DCLOCK={kind}"));
        compiler.args(["-shared", "-fPIC", "-o"]);
        compiler.arg(&clock.library).arg(source);
        assert!(compiler.status().unwrap().success());
        clock.set(offset);
        clock
    }

    pub(crate) fn set(&self, offset: i64) {
        let new = self.offset.with_extension("new");
        std::fs::write(&new, offset.to_string()).unwrap();
        std::fs::rename(&new, &self.offset).unwrap();
    }

    pub(crate) fn of(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("CLOCK_OFFSET", &self.offset);
        command
    }
}

const TWO_HOURS: i64 = 7200;

/// The scene's certificates are valid from five minutes before now; no test waits so long.
const BACK: i64 = -200;

pub(crate) fn serve(web: Web, clock: &Clock) -> Serving {
    let command = command(&web.scene, &["--target=web", "--listen=127.0.0.1:0"]);
    let log = web.scene.path("serve.log");
    let process = Process::spawn(clock.of(command), &log).unwrap();
    Serving { process, web }
}

fn until_state(serving: &Serving, state: &str) {
    until(state, || (serving.state() == state).then_some(()));
}

#[test]
fn a_clock_that_was_ahead_at_boot_costs_no_more_than_a_minute() {
    let web = Web::start();
    let clock = Clock::new(&web.scene, TWO_HOURS);
    let serving = serve(web, &clock);
    until_state(&serving, "failing");
    clock.set(0);
    until_state(&serving, "ok");
}

#[test]
fn a_clock_that_is_set_while_sessions_are_served_costs_no_more_than_a_minute() {
    let web = short_sessions(4);
    let clock = Clock::new(&web.scene, 0);
    let serving = serve(web, &clock);
    let headers = [("Authorization", &*serving.token())];
    let answer = || serving.http().get("/credentials/web", &headers);
    let mut last = until("a session", || {
        let answer = answer();
        (answer.status == 200).then(|| key_of(&answer))
    });
    for offset in [BACK, 0] {
        clock.set(offset);
        for _ in 0..2 {
            last = until("the next session", || {
                let answer = answer();
                let key = (answer.status == 200).then(|| key_of(&answer))?;
                (key != last).then_some(key)
            });
        }
    }
    clock.set(TWO_HOURS);
    until_state(&serving, "failing");
    clock.set(0);
    until_state(&serving, "ok");
}

#[test]
fn a_command_gets_the_next_session_though_the_clock_is_behind() {
    let web = short_sessions(4);
    let clock = Clock::new(&web.scene, BACK);
    let script = "for i in $(seq 200); do curl -s -H \"Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN\" \
                  $AWS_CONTAINER_CREDENTIALS_FULL_URI | grep -o 'ASIA[A-Z0-9]*'; sleep 0.1; done | uniq | head -n 3";
    let targets = crate::serving::write_targets(&web.scene);
    let mut exec = web.scene.roleseal(&["exec", "--target=web"]).unwrap();
    exec.arg("--targets").arg(targets);
    exec.args(["--", "env", "-u", "LD_PRELOAD", "sh", "-c", script]);
    let output = clock.of(exec).output().unwrap();
    let keys = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(keys.lines().count(), 3, "{output:?}");
}

#[test]
fn the_profiles_of_update_are_written_once_the_clock_is_right() {
    let web = Web::start();
    let clock = Clock::new(&web.scene, TWO_HOURS);
    let targets = crate::serving::write_targets(&web.scene);
    let file = web.scene.path("credentials");
    let mut update = web.scene.roleseal(&["update", "--target=web"]).unwrap();
    update.arg("--targets").arg(targets);
    update.arg("--credentials-file").arg(&file);
    let log = web.scene.path("update.log");
    let process = Process::spawn(clock.of(update), &log).unwrap();
    until("a try failed", || {
        process.log().contains("profile web").then_some(())
    });
    assert!(!file.exists());
    clock.set(0);
    until("the profile", || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.contains("aws_access_key_id = ASIA").then_some(())
    });
    let pid = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}
