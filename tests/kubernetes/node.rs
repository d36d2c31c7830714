//! The node: clients of AWS, the addresses of EKS, an emptyDir.

use super::*;

/// One boto3 client goes on while its sessions end and its token is replaced.
#[test]
fn clients_of_aws_go_on_while_their_token_is_replaced() {
    let issuer = Issuer::rs256();
    let web = short_sessions(16);
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let file = pods
        .web
        .scene
        .write("token", &issuer.token("payments", "api"))
        .unwrap();
    let identity = |file: &Path| {
        let mut aws = pods.client("aws", file);
        aws.args(["sts", "get-caller-identity", "--region=eu-central-1"]);
        aws.output().unwrap()
    };
    let arn = json_of(&identity(&file))["Arn"].clone();
    assert!(
        arn.as_str().unwrap().contains("assumed-role/web-deploy/"),
        "{arn}"
    );
    let other = issuer.token("payments", "other");
    let stranger = pods.web.scene.write("other", &other).unwrap();
    assert!(!identity(&stranger).status.success());

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("refresh.py");
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        // As the kubelet does: another file in its place, whose predecessor is worth nothing any more.
        scope.spawn(|| {
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let mut next = claims("payments", "api", &format!("api-{number}"));
                // With the minute of leeway, it is good for ten seconds: none is for two sessions.
                next["exp"] = json!(next["iat"].as_u64().unwrap() - 40);
                let new = pods
                    .web
                    .scene
                    .write("token.new", &issuer.sign(&next))
                    .unwrap();
                std::fs::rename(new, &file).unwrap();
                std::thread::sleep(Duration::from_millis(200)); // how often it is replaced
            }
        });
        let output = pods.client("python", &file).arg(script).output();
        is_over.store(true, Ordering::Relaxed);
        json_of(&output.unwrap())
    });
    assert_eq!(seen["keys"].as_array().unwrap().len(), 3, "{seen}");
    assert_eq!(seen["arns"].as_array().unwrap().len(), 1, "{seen}");
}

/// A variable for the test that runs again in a network namespace of its own.
const INSIDE: &str = "ROLESEAL_TEST_INSIDE";

#[test]
fn pods_of_the_node_reach_it_at_the_addresses_of_eks() {
    if as_root::by_sudo!() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        let name = "kubernetes::node::pods_of_the_node_reach_it_at_the_addresses_of_eks";
        let mut again = Command::new("unshare");
        again.arg("--net").arg(std::env::current_exe().unwrap());
        again
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1");
        let output = again.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("1 passed"), "{output:?}");
        return;
    }
    for words in [
        "link set lo up",
        "address add 169.254.170.23/32 dev lo",
        "address add fd00:ec2::23/128 dev lo",
    ] {
        let mut ip = Command::new("ip");
        assert!(
            ip.args(words.split(' ')).status().unwrap().success(),
            "{words}"
        );
    }
    let issuer = Issuer::rs256();
    let web = Web::start();
    let kubernetes = in_file(&web.scene, &issuer);
    let more = [
        "--listen=169.254.170.23:9911",
        "--listen=[fd00:ec2::23]:9911",
    ];
    let pods = Pods::start_with(web, &kubernetes, RULES, &more);
    let token = issuer.token("payments", "api");
    let mut keys = BTreeSet::new();
    for address in ["169.254.170.23:9911", "[fd00:ec2::23]:9911"] {
        let mut http = Http::tcp(address.parse().unwrap());
        let authorization = ("Authorization", token.as_str());
        keys.insert(key_of(&http.get("/v1/credentials", &[authorization])));
        let rebound = http.get("/v1/credentials", &[authorization, ("Host", "evil:9911")]);
        assert_eq!(rebound.status, 403);
        refused(&http.get("/v1/credentials", &[]), 401);
    }
    assert_eq!(keys.len(), 1);
    // What the SDKs think of these addresses.
    let file = pods.web.scene.write("token", &token).unwrap();
    for address in ["169.254.170.23:9911", "[fd00:ec2::23]:9911"] {
        let mut aws = pods.client("aws", &file);
        let url = format!("http://{address}/v1/credentials/web");
        aws.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        let identity = aws.args(["sts", "get-caller-identity", "--region=eu-central-1"]);
        let arn = json_of(&identity.output().unwrap())["Arn"].clone();
        assert!(
            arn.as_str().unwrap().contains("assumed-role/web-deploy/"),
            "{arn}"
        );
    }
}

#[test]
fn a_container_keeps_its_token_files_in_an_empty_dir() {
    if as_root::by_sudo!() {
        return;
    }
    let web = Web::start();
    let scene = &web.scene;
    let targets = write_targets(scene);
    for open in [scene.dir(), &targets] {
        std::fs::set_permissions(open, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let volume = scene.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, PermissionsExt::from_mode(0o777)).unwrap();
    let words = [
        "--no-new-privs",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--clear-groups",
        "--reuid=65534",
        "--regid=65534",
    ];
    let targets = targets.display().to_string();
    let arguments = [
        "serve",
        "--target=web",
        "--listen=127.0.0.1:0",
        "--targets",
        &targets,
    ];
    // Whoever runs the tests may have a home that is closed to others.
    let program = scene.path("roleseal");
    copy_program(scene.roleseal(&arguments).unwrap().get_program(), &program);
    let mut command = scene.command("setpriv");
    command.args(words).arg(&program).args(arguments);
    command.env("XDG_RUNTIME_DIR", &volume);
    let _serving = Process::spawn(command, &scene.path("serve.log")).unwrap();
    let token = volume.join("roleseal/web.token");
    until("there is a token", || token.exists().then_some(()));
    use std::os::unix::fs::MetadataExt;
    for (path, mode) in [(token.parent().unwrap(), 0o700), (&token, 0o600)] {
        let metadata = std::fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (NOBODY, mode));
    }

    // A directory that another container made is none of ours.
    let taken = scene.path("taken");
    std::fs::create_dir_all(taken.join("roleseal")).unwrap();
    let mut command = scene.command(&program);
    command
        .args(arguments)
        .env("XDG_RUNTIME_DIR", &taken)
        .uid(NOBODY)
        .gid(NOBODY);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
}
