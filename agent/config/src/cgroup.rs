//! The control groups of a process, as `/proc/PID/cgroup` lists them.

use crate::unit_name::{UnitName, is_slice};

/// Where a process belongs by its control groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The unit of the system's service manager. Only root can put a process there.
    pub(crate) unit: Option<UnitName>,
    /// The pod and the container, by the names that container runtimes give to groups. Any user can make such a group.
    pub(crate) container: Option<String>,
}

impl Membership {
    /// Parses the lines of `/proc/PID/cgroup`: `NUMBER:CONTROLLERS:PATH`, cgroups(7).
    pub(crate) fn parse(text: &str) -> Membership {
        let groups = || {
            let lines = text.lines();
            lines.filter_map(|line| line.split_once(':')?.1.split_once(':'))
        };
        Membership {
            unit: unit(groups()),
            container: groups().find_map(|(_, path)| container(path)),
        }
    }
}

/// Returns the unit by the groups of the service manager. It uses the unified hierarchy, the one that is called `systemd`, or
/// both with the same paths. Where they differ, one of them belongs to another program: then neither counts.
fn unit<'t>(groups: impl Iterator<Item = (&'t str, &'t str)>) -> Option<UnitName> {
    let mut units = groups
        .filter(|(controllers, path)| matches!(*controllers, "" | "name=systemd") && *path != "/")
        .map(|(_, path)| unit_of(path));
    let unit = units.next()??;
    units
        .all(|other| other.as_ref() == Some(&unit))
        .then_some(unit)
}

/// Returns the first group of the path that is not a slice, as sd_pid_get_unit(3) does. Groups below it are the unit's own
/// to name, such as those of a user's manager in `user@1000.service`; a path that begins with `/..` is outside of
/// the reader's namespace.
fn unit_of(path: &str) -> Option<UnitName> {
    let mut groups = path
        .split('/')
        .filter(|group| !group.is_empty())
        .map(unescape);
    groups.find(|group| !is_slice(group))?.parse().ok()
}

/// Removes the `_` before a name that is also that of a file of the kernel, such as `memory.service`.
fn unescape(group: &str) -> &str {
    group.strip_prefix('_').unwrap_or(group)
}

/// Returns `podUID/RUNTIME-ID`, or one of the two, by the innermost groups of such names.
fn container(path: &str) -> Option<String> {
    let last = |name: fn(&str) -> Option<String>| path.rsplit('/').find_map(name);
    match (last(pod), last(runtime)) {
        (Some(pod), Some(runtime)) => Some(format!("{pod}/{runtime}")),
        (pod, runtime) => pod.or(runtime),
    }
}

/// Of `kubepods-burstable-pod0e1f_….slice` or `pod0e1f-…`. A static pod's UID is a hash without dashes.
fn pod(group: &str) -> Option<String> {
    let (_, uid) = group.trim_end_matches(".slice").rsplit_once("pod")?;
    let uid = uid.replace('_', "-");
    is_hexadecimal(&uid.replace('-', ""), POD_DIGITS).then(|| format!("pod{uid}"))
}

/// Of `cri-containerd-….scope`, `docker-….scope`, `libpod-…`, or a bare id.
fn runtime(group: &str) -> Option<String> {
    let group = group.trim_end_matches(".scope");
    let id = group.rsplit(['-', ':']).next()?;
    is_hexadecimal(id, ID_DIGITS).then(|| group.to_owned())
}

/// Of a pod's UID, in hexadecimal digits.
const POD_DIGITS: usize = 32;

/// Of a container's id.
const ID_DIGITS: usize = 64;

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unit_in(text: &str) -> Option<String> {
        Membership::parse(text).unit.map(String::from)
    }

    fn container_in(path: &str) -> Option<String> {
        Membership::parse(&format!("0::{path}\n")).container
    }

    #[test]
    fn the_unit_is_the_first_group_that_is_not_a_slice() {
        for (path, unit) in [
            ("/system.slice/payments.service", "payments.service"),
            ("/system.slice/payments.service/", "payments.service"),
            (
                "/system.slice/system-foo.slice/foo@1.service",
                "foo@1.service",
            ),
            ("/payments.service", "payments.service"),
            ("/-.slice/payments.service", "payments.service"),
            (
                "/system.slice/payments.service/worker/x.service",
                "payments.service",
            ),
            (
                "/system.slice/dev-disk-by\\x2dlabel-a.swap",
                "dev-disk-by\\x2dlabel-a.swap",
            ),
            ("/system.slice/_memory.service", "memory.service"),
            ("/system.slice/__a.service", "_a.service"),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                "session-3.scope",
            ),
        ] {
            assert_eq!(
                unit_in(&format!("0::{path}\n")).as_deref(),
                Some(unit),
                "{path}"
            );
        }
        for path in [
            "/",
            "",
            "/system.slice",
            "/../payments.service",
            "/../../system.slice/payments.service",
            "/system.slice/../payments.service",
            "/docker/0123/system.slice/payments.service",
            "/lxc.payload.a/system.slice/payments.service",
            "/system.slice/foo@.service",
            "/system.slice/payments.service (deleted)",
            "/a--b.slice/payments.service",
        ] {
            assert_eq!(unit_in(&format!("0::{path}\n")), None, "{path}");
        }
    }

    /// A user may create any groups below the user's own manager, or below those of a container.
    #[test]
    fn a_name_below_a_unit_is_not_the_unit() {
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        for below in [
            "/app.slice/payments.service",
            "/payments.service",
            "/system.slice/payments.service",
            "/-.slice/payments.service",
        ] {
            let unit = unit_in(&format!("0::{manager}{below}\n"));
            assert_eq!(unit.as_deref(), Some("user@1000.service"), "{below}");
            let unit = unit_in(&format!("0::/system.slice/docker-1.scope{below}\n"));
            assert_eq!(unit.as_deref(), Some("docker-1.scope"), "{below}");
        }
    }

    #[test]
    fn only_the_managers_hierarchies_count_and_they_agree() {
        let (payments, other) = (
            "/system.slice/payments.service",
            "/system.slice/other.service",
        );
        let named = |text: &str| unit_in(text).as_deref() == Some("payments.service");
        assert!(named(&format!(
            "7:cpu,cpuacct:{other}\n1:name=systemd:{payments}\n0::/\n"
        )));
        assert!(named(&format!(
            "1:name=systemd:{payments}\n0::{payments}\n"
        )));
        assert!(named(&format!("1:name=systemd:{payments}\n")));
        assert!(named(&format!("1:name=systemd:/\n0::{payments}\n")));
        for text in [
            format!("1:name=systemd:{payments}\n0::{other}\n"),
            format!("1:name=systemd:{payments}\n0::/docker/a\n"),
            format!("1:name=systemd:/a\n0::{payments}\n"),
            format!("7:cpu:{payments}\n"),
            format!("2:name=elogind:{payments}\n0::/\n"),
            format!("2:name=systemd,cpu:{payments}\n"),
            payments.to_owned(),
            String::new(),
        ] {
            assert_eq!(unit_in(&text), None, "{text}");
        }
    }

    #[test]
    fn containers_are_named_as_their_runtimes_do() {
        let id = "0123456789abcdef".repeat(4);
        let uid = "1f0b6f2e-93a4-4f0c-8d5a-7a5c0d1e2f30";
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let pods = "/kubepods.slice/kubepods-burstable.slice";
        for (path, container) in [
            (
                format!("{pods}/{slice}/cri-containerd-{id}.scope"),
                format!("pod{uid}/cri-containerd-{id}"),
            ),
            (
                format!("/kubepods/burstable/pod{uid}/{id}"),
                format!("pod{uid}/{id}"),
            ),
            (format!("/../../pod{uid}/{id}"), format!("pod{uid}/{id}")),
            (
                format!(
                    "{pods}/kubepods-pod{}.slice/crio-{id}.scope",
                    uid.replace('-', "")
                ),
                format!("pod{}/crio-{id}", uid.replace('-', "")),
            ),
            (
                // Kubernetes in Docker.
                format!(
                    "/system.slice/docker-{}.scope{pods}/{slice}/cri-containerd-{id}.scope",
                    "f".repeat(64)
                ),
                format!("pod{uid}/cri-containerd-{id}"),
            ),
            (
                format!("/system.slice/docker-{id}.scope/init"),
                format!("docker-{id}"),
            ),
            (format!("/docker/{id}"), id.clone()),
            (
                format!(
                    "/user.slice/user-1.slice/user@1.service/user.slice/libpod-{id}.scope/container"
                ),
                format!("libpod-{id}"),
            ),
            (
                format!("/machine.slice/machine-libpod_pod_{id}.slice/libpod-{id}.scope"),
                format!("libpod-{id}"),
            ),
        ] {
            assert_eq!(container_in(&path), Some(container), "{path}");
        }
        for path in [
            "/",
            "/system.slice/payments.service",
            "/docker/1",
            "/podman/pod/pod1",
        ] {
            assert_eq!(container_in(path), None, "{path}");
        }
    }

    const GROUP: &str = "[a-z_@.:\\\\-]{1,8}(\\.slice|\\.service|\\.scope)?";

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(?s).{0,300}") {
            let _ = Membership::parse(&text);
        }

        /// Groups below a unit change nothing.
        #[test]
        fn what_is_below_a_unit_says_nothing(
            slices in prop::collection::vec("[a-z]{1,4}\\.slice", 0..3),
            unit in "[a-z]{1,8}(@[0-9]{1,4})?\\.(service|scope)",
            below in prop::collection::vec(GROUP, 0..4),
        ) {
            let above: String = slices.iter().map(|slice| format!("/{slice}")).collect();
            let below: String = below.iter().map(|group| format!("/{group}")).collect();
            prop_assert_eq!(unit_in(&format!("0::{above}/{unit}{below}\n")), Some(unit));
        }

        /// A unit has its own name in the path, behind nothing but slices.
        #[test]
        fn a_unit_is_behind_slices_alone(groups in prop::collection::vec(GROUP, 0..5)) {
            let path: String = groups.iter().map(|group| format!("/{group}")).collect();
            if let Some(unit) = unit_in(&format!("0::{path}\n")) {
                let behind = groups.iter().position(|group| unescape(group) == unit).unwrap();
                prop_assert!(groups[..behind].iter().all(|group| is_slice(unescape(group))));
            }
        }
    }
}
