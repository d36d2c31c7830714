//! Users who hold connections.

use super::*;

#[test]
fn idle_connections_of_others_keep_nobody_out() {
    if as_root::by_sudo!() {
        return;
    }
    let (web, journal) = start(None);
    let socket = web.scene.socket();
    let taken =
        std::thread::scope(|scope| scope.spawn(|| take_connections(&socket)).join().unwrap());
    // Root, who is the agent's own user here, and a named user; each with a new connection, more than once.
    for _ in 0..3 {
        assert_eq!(error_of(&sign(&socket, request(&web.scene))), "");
        credentials(&web);
    }
    let listed = call(&socket, "ListIdentities", json!({}));
    assert_eq!(listed["parameters"]["identities"][0]["name"], "web");
    // Somebody whom no rule names is told so, and nothing else.
    let refused = std::thread::scope(|scope| {
        let stranger = || {
            become_user(STRANGER + 2);
            sign(&socket, request(&web.scene))
        };
        scope.spawn(stranger).join().unwrap()
    });
    assert_eq!(error_of(&refused), "NotPermitted");

    let metrics = scrape(&web.scene);
    assert!(metrics["roleseal_connections"] <= 1024 + 16);
    assert!(metrics["roleseal_connections_evicted_total"] >= 1000);
    drop(taken);
    journal.end(web);
}

fn threads_of_connections(web: &Web) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", web.agent.process().id())).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    names
        .filter(|name| name.as_ref().is_ok_and(|name| name == "connection\n")) // or it has ended
        .count()
}

/// Many users, each with few connections and half a message on each: together they have the whole table.
#[test]
fn messages_that_do_not_end_keep_no_named_user_out() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.limits = Some(LimitsConfig {
        connections: Some(64),
        connections_per_user: Some(32),
        ..LimitsConfig::default()
    });
    let (web, journal) = start_with(lab, "[[identity.allow]]\nusers = [\"*\"]\n");
    let hold = |uid| {
        let mut stream = connect_as(&web.scene, uid, uid);
        stream.write_all(b"{").unwrap();
        stream
    };
    let users = SUBORDINATE.take(32);
    let taken: Vec<_> = users.flat_map(|uid| [hold(uid), hold(uid)]).collect();
    until("they have the table and no thread", || {
        let have_table = scrape(&web.scene)["roleseal_connections"] == 64;
        (have_table && threads_of_connections(&web) == 0).then_some(())
    });
    for uid in [STRANGER, SUBORDINATE.start, STRANGER + 1] {
        let mut connection = connect_as(&web.scene, uid, uid);
        let reply = call_on(&mut connection, "SignCreateSession", request(&web.scene));
        assert_eq!(error_of(&reply), "", "{uid}");
    }
    drop(taken);
    journal.end(web);
}

/// A member whom nobody has asked about yet, while one stranger has all the places of the unnamed: with messages of
/// which the end does not come, and with more calls than are answered meanwhile.
#[test]
fn strangers_that_keep_all_their_places_busy_keep_no_member_of_a_group_out() {
    if as_root::by_sudo!() {
        return;
    }
    let info = format!("{}\0", json!({ "method": "org.varlink.service.GetInfo" }));
    for bytes in [format!("{info}{{"), info.repeat(400)] {
        let (web, journal) = start_with_group();
        let taken = strangers(&web, 64, bytes.as_bytes());
        until("they have their places", || {
            (scrape(&web.scene)["roleseal_connections"] == 64).then_some(())
        });
        for _ in 0..20 {
            signed_for_member(&web);
        }
        drop(taken);
        journal.end(web);
    }
}

#[test]
fn a_crowd_of_a_member_is_served_that_comes_before_its_groups_are_known() {
    if as_root::by_sudo!() {
        return;
    }
    let (web, journal) = start_with_group();
    let socket = web.scene.socket();
    assert_eq!(error_of(&sign(&socket, request(&web.scene))), ""); // the token is open
    let launcher = rustix::process::Pid::from_raw(launcher(&web.agent)).unwrap();
    rustix::process::kill_process(launcher, rustix::process::Signal::STOP).unwrap();
    let parameters = request(&web.scene);
    let message =
        json!({ "method": "org.roleseal.Agent.SignCreateSession", "parameters": parameters });
    let message = format!("{message}\0");
    let connect = |_| {
        let mut stream = connect_as(&web.scene, MEMBER, ANOTHER_GROUP);
        stream.write_all(message.as_bytes()).unwrap();
        stream
    };
    let crowd: Vec<UnixStream> = (0..100).map(connect).collect();
    // Whoever is served after them has been accepted after them.
    let listed = call(&socket, "ListIdentities", json!({}));
    assert_eq!(error_of(&listed), "");
    rustix::process::kill_process(launcher, rustix::process::Signal::CONT).unwrap();
    for mut stream in crowd {
        assert_eq!(error_of(&read_reply(&mut stream)), "");
    }
    journal.end(web);
}
