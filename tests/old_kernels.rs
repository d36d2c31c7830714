use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use hsm_fixtures::{Agent, BATCH_ROLE_ARN, KeyKind, WEB_ROLE_ARN};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use serde_json::Value;

use crate::agent::{
    Lab, Web, as_this_user, copy_program, json_of, launcher, log_with, token_programs, until,
};
use crate::others::open_to_others;
use crate::strangers::with_rules;
use crate::units::{Slice, rule_that_refuses};

/// `PR_GET_AUXV` of Linux 6.4 (include/uapi/linux/prctl.h).
const PR_GET_AUXV: u64 = 0x4155_5856;

/// `SO_PEERPIDFD` of Linux 6.5 (include/uapi/asm-generic/socket.h).
const PEER_PIDFD: u64 = 77;

/// Any user but root: one whose processes lose their /proc/self/auxv when they are not dumpable.
const USER: u32 = 4_000_001;

/// Another one.
const ANOTHER_USER: u32 = 4_000_002;

/// Answers in this thread, and in what it starts, as kernels before 6.4 do.
fn forget_newer_calls() {
    let auxv = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, PR_GET_AUXV);
    let pidfd = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, PEER_PIDFD);
    let rule = |condition| vec![SeccompRule::new(vec![condition]).unwrap()];
    for (call, rules, error) in [
        (libc::SYS_prctl, rule(auxv.unwrap()), libc::EINVAL),
        (
            libc::SYS_getsockopt,
            rule(pidfd.unwrap()),
            libc::ENOPROTOOPT,
        ),
    ] {
        let rules = BTreeMap::from([(call, rules)]);
        let error = SeccompAction::Errno(error.unsigned_abs());
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, error, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        apply_filter(&program).unwrap();
    }
}

fn give_away(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give_away(&path);
        }
        chown(&path, Some(USER), Some(USER)).unwrap();
    }
    chown(directory, Some(USER), Some(USER)).unwrap();
}

/// On Debian 12, Ubuntu 22.04 and RHEL 9, an agent that could no longer read its own auxiliary vector ended at its first
/// decision.
#[test]
fn before_linux_6_4_the_agent_goes_on_after_its_decisions() {
    let lab = Lab::new(KeyKind::EcP256);
    let text = lab.config.to_toml().unwrap();
    let file = lab.scene.write("agent.toml", &text).unwrap();
    let own = lab.scene.agent_command(&file).unwrap();
    let agent = lab.scene.path("roleseal-agent");
    copy_program(own.get_program(), &agent);
    let beside = Path::new(own.get_program()).with_file_name("roleseal-pkcs11");
    copy_program(beside, &lab.scene.path("roleseal-pkcs11"));
    let mut command = lab.scene.command(&agent);
    command.args(own.get_args()).current_dir("/");
    if rustix::process::geteuid().is_root() {
        give_away(lab.scene.dir());
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(lab.scene.dir(), open).unwrap();
        command.uid(USER).gid(USER);
    }
    let (socket, log) = (lab.scene.socket(), lab.scene.path("agent.log"));
    let agent = std::thread::scope(|scope| {
        // The filter is this thread's, and its children's.
        let started = scope.spawn(|| {
            forget_newer_calls();
            Agent::start(command, &socket, &log, || false).unwrap()
        });
        started.join().unwrap()
    });
    let web = Web {
        agent,
        scene: lab.scene,
    };
    let processes = |web: &Web| (launcher(&web.agent), token_programs(&web.agent));
    json_of(&web.credential_process().output().unwrap());
    let before = processes(&web);
    for (role, code) in [(WEB_ROLE_ARN, 0), (BATCH_ROLE_ARN, 4)].repeat(3) {
        let arguments = web.scene.credential_process("web", role);
        let mut command = web.scene.roleseal(&arguments).unwrap();
        let output = command.arg("--no-cache").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    assert_eq!(processes(&web), before);
    // What is asked for the log alone has its answer, too, and nothing was contained.
    let log = until("seven decisions", || {
        let log = web.agent.process().log();
        (log.matches(" executable=").count() == 7).then_some(log)
    });
    assert!(!log.contains("panicked"), "{log}");
    assert!(web.agent.process().is_running());
    web.agent.stop().unwrap();
}

/// A number alone could be another process's by the time its unit is read, of any user.
#[test]
fn before_linux_6_5_a_unit_is_permitted_with_its_user_only() {
    if as_root::by_sudo!() {
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let lab = Lab::new(KeyKind::EcP256);
    let rules = format!(
        "units = [\"payments.service\"]\n[[identity.allow]]\nusers = [{USER}]\nunits = [\"payments.service\"]\n"
    );
    let text = with_rules(&lab, &rules);
    let file = lab.scene.write("agent.toml", &text).unwrap();
    let start = || {
        forget_newer_calls();
        let mut check = lab.scene.agent_command(&file).unwrap();
        let checked = as_this_user(check.arg("--check")).output().unwrap();
        let command = lab.scene.agent_command(&file).unwrap();
        let (socket, log) = (lab.scene.socket(), lab.scene.path("agent.log"));
        let agent = Agent::start(command, &socket, &log, || false).unwrap();
        (checked, agent)
    };
    let (checked, agent) = std::thread::scope(|scope| scope.spawn(start).join().unwrap());
    let warned = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{warned}");
    assert!(warned.contains("SO_PEERPIDFD"), "{warned}");
    log_with(&agent, "SO_PEERPIDFD");
    open_to_others(&lab.scene);
    let web = Web {
        agent,
        scene: lab.scene,
    };
    let rule = |uid, path| rule_that_refuses(&web, &slice, uid, path);
    assert_eq!(rule(USER, Some("payments.service")), Value::Null);
    assert_eq!(rule(USER, Some("other.service")), "caller");
    assert_eq!(rule(USER, None), "caller");
    assert_eq!(rule(ANOTHER_USER, Some("payments.service")), "caller");
}
