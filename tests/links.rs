use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::policy::NOBODY;
use crate::renewal::{add, ca, lab, renew};
use crate::update::stage::{ORIGINAL, Stage};

/// All that can be told of a directory's files.
fn state(directory: &Path) -> Vec<(PathBuf, u64, i64, u32, Vec<u8>)> {
    let mut state: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let file = path.symlink_metadata().unwrap();
            let text = fs::read(&path).unwrap();
            (path, file.ino(), file.ctime_nsec(), file.uid(), text)
        })
        .collect();
    state.sort();
    state
}

fn give(path: &Path) {
    lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// Root's credentials in `.aws`, and a home of nobody's.
struct Homes {
    stage: Stage,
}

impl Homes {
    fn new() -> Homes {
        let stage = Stage::new(None);
        fs::create_dir(stage.scene.path("home")).unwrap();
        give(&stage.scene.path("home"));
        Homes { stage }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stage.scene.path("home").join(name)
    }

    fn directory(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        give(&self.path(name));
    }

    /// Of nobody's.
    fn link(&self, to: impl AsRef<Path>, name: &str) {
        symlink(to, self.path(name)).unwrap();
        give(&self.path(name));
    }

    fn update(&self) -> Output {
        let mut command = self.stage.update(&["--once", "--target", "web"]);
        command.env("HOME", self.path("")).output().unwrap()
    }

    /// Refused with the link's name, and nothing of root's is changed.
    fn is_refused(&self, link: &str) {
        let roots = self.stage.scene.path(".aws");
        let before = state(&roots);
        let output = self.update();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(self.path(link).to_str().unwrap()), "{said}");
        assert_eq!(state(&roots), before);
        assert_eq!(self.stage.service().create_session_requests(), 0);
    }
}

#[test]
fn root_does_not_follow_a_users_link_to_its_credentials() {
    if as_root::by_sudo!() {
        return;
    }
    let homes = Homes::new();
    let roots = homes.stage.scene.path(".aws");
    homes.link(&roots, ".aws");
    homes.is_refused(".aws");
    fs::remove_file(homes.path(".aws")).unwrap();
    homes.link("../.aws", ".aws");
    homes.is_refused(".aws");
    fs::remove_file(homes.path(".aws")).unwrap();

    homes.directory(".aws");
    homes.link(roots.join("credentials"), ".aws/credentials");
    homes.is_refused(".aws/credentials");
    fs::remove_file(homes.path(".aws/credentials")).unwrap();
    fs::hard_link(roots.join("credentials"), homes.path(".aws/credentials")).unwrap();
    homes.is_refused(".aws/credentials");
    fs::remove_file(homes.path(".aws/credentials")).unwrap();
    // A chain of links, one of which is root's.
    symlink(&roots, homes.stage.scene.path("to-roots")).unwrap();
    fs::rename(homes.path(".aws"), homes.path("away")).unwrap();
    homes.link("../to-roots", ".aws");
    homes.is_refused(".aws");
    fs::remove_file(homes.path(".aws")).unwrap();

    // Within nobody's own directories they are followed, and the file stays nobody's.
    homes.directory("dotfiles");
    fs::write(homes.path("dotfiles/credentials"), "").unwrap();
    give(&homes.path("dotfiles/credentials"));
    homes.link("dotfiles", ".aws");
    let output = homes.update();
    assert!(output.status.success(), "{output:?}");
    let file = homes.path("dotfiles/credentials");
    assert!(fs::read_to_string(&file).unwrap().contains("[web]"));
    assert_eq!(file.metadata().unwrap().uid(), NOBODY);
    assert_eq!(homes.stage.text(), ORIGINAL);
}

/// The user moves the directory away and a link into its place, and back, all the time.
#[test]
fn root_writes_nothing_of_its_own_while_a_user_swaps_a_directory_for_a_link() {
    if as_root::by_sudo!() {
        return;
    }
    let homes = Homes::new();
    let roots = homes.stage.scene.path(".aws");
    homes.directory(".aws");
    fs::write(homes.path(".aws/credentials"), "").unwrap();
    give(&homes.path(".aws/credentials"));
    homes.link(&roots, "other");
    let before = state(&roots);
    let (aws, other, done) = (
        homes.path(".aws"),
        homes.path("other"),
        AtomicBool::new(false),
    );
    let (mut written, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &aws, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..40 {
            match homes.update().status.code() {
                Some(0) => written += 1,
                Some(1) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        state(&roots),
        before,
        "{written} written, {refused} refused"
    );
    assert_eq!(written + refused, 40);
}

#[test]
fn root_renews_no_certificate_behind_a_users_link() {
    if as_root::by_sudo!() {
        return;
    }
    let (mut lab, key) = lab();
    let issue = ca(&lab.scene);
    let certificate = add(&mut lab, &key, "web", &issue);
    let (roots, home) = (lab.scene.path("roots"), lab.scene.path("home"));
    for directory in [&roots, &home] {
        fs::create_dir(directory).unwrap();
    }
    for extension in ["pem", "csr"] {
        let file = roots.join("web").with_extension(extension);
        fs::rename(certificate.with_extension(extension), file).unwrap();
    }
    give(&home);
    lab.config.identity[0].certificate = home.join("certs/web.pem");
    let scene = &lab.scene;
    scene
        .write("agent.toml", &lab.config.to_toml().unwrap())
        .unwrap();
    let certs = home.join("certs");
    let is_refused = |link: &Path| {
        let before = state(&roots);
        let output = renew(scene, &["--force"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(link.to_str().unwrap()), "{said}");
        assert_eq!(state(&roots), before);
    };
    symlink(&roots, &certs).unwrap();
    give(&certs);
    is_refused(&certs);
    fs::remove_file(&certs).unwrap();
    fs::create_dir(&certs).unwrap();
    for name in ["web.pem", "web.csr"] {
        symlink(roots.join(name), certs.join(name)).unwrap();
        give(&certs.join(name));
    }
    give(&certs);
    is_refused(&certs.join("web.pem"));
    // A certificate of nobody's own, and a request that is not: root sends no file of that user's choice.
    fs::remove_file(certs.join("web.pem")).unwrap();
    fs::copy(roots.join("web.pem"), certs.join("web.pem")).unwrap();
    give(&certs.join("web.pem"));
    is_refused(&certs.join("web.csr"));
    fs::remove_file(certs.join("web.csr")).unwrap();
    fs::copy(roots.join("web.csr"), certs.join("web.csr")).unwrap();
    let output = renew(scene, &["--force"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(certs.join("web.pem").metadata().unwrap().uid(), NOBODY);

    // New files: a CSR.
    let request = home.join("to-roots/new.csr");
    symlink(&roots, home.join("to-roots")).unwrap();
    give(&home.join("to-roots"));
    let before = state(&roots);
    let mut csr = scene.command(hsm_fixtures::programs::admin().unwrap());
    csr.args([
        "csr",
        "--subject",
        "CN=web",
        "--uri",
        "pkcs11:token=lab;object=web",
    ])
    .arg("--module")
    .arg(hsm_fixtures::SoftHsm::module().unwrap())
    .arg("--pin-file")
    .arg(scene.path("lab.pin"))
    .arg("--out")
    .arg(&request);
    let output = csr.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(home.join("to-roots").to_str().unwrap()),
        "{said}"
    );
    assert_eq!(state(&roots), before);
}
