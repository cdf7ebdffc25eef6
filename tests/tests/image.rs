//! The images, as the packer writes them without an engine, from what the Dockerfile says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tidings_tests::process::in_workspace;

const PROGRAMS: [&str; 3] = ["tidings-operator", "tidings-sidecar", "tidings"];

/// A copy of the files that make an image, with programs that are some bytes.
struct Tree(TempDir);

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A file of an archive.
fn member(archive: &Path, name: &str) -> Vec<u8> {
    Command::new("tar").arg("-xOf").arg(archive).arg(name).output().unwrap().stdout
}

fn json(archive: &Path, name: &str) -> Value {
    serde_json::from_slice(&member(archive, name)).unwrap()
}

fn configuration(archive: &Path) -> Value {
    let manifest = json(archive, "manifest.json");
    json(archive, manifest[0]["Config"].as_str().unwrap())
}

// === impl Tree ===

impl Tree {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for part in ["image/rootfs", "image/passwd", "tests/node/image", "Dockerfile"] {
            let to = folder.path().join(part);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(in_workspace(part), to).unwrap();
        }
        std::fs::create_dir_all(folder.path().join("programs")).unwrap();
        for program in PROGRAMS {
            std::fs::write(folder.path().join("programs").join(program), program).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn change_dockerfile(&self, from: &str, to: &str) {
        let file = self.path("Dockerfile");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "the Dockerfile says {from}");
        std::fs::write(file, text.replace(from, to)).unwrap();
    }

    fn pack(&self, out: &str) -> (bool, String) {
        let mut command = Command::new(self.path("tests/node/image"));
        command.arg("--programs").arg(self.path("programs")).arg(self.path(out));
        output(command.env("SOURCE_DATE_EPOCH", "1764000000").env("IMAGE_REVISION", "abc"))
    }

    fn packed(&self, program: &str) -> PathBuf {
        let (packed, said) = self.pack("out");
        assert!(packed, "{said}");
        self.path("out").join(format!("{program}.tar"))
    }
}

#[test]
fn an_image_holds_its_program_the_certificates_and_passwd_and_runs_as_nobody_who_may_write() {
    let tree = Tree::new();
    for program in PROGRAMS {
        let archive = tree.packed(program);
        let layer = tree.path("layer.tar");
        std::fs::write(&layer, member(&archive, "layer.tar")).unwrap();
        let (_, listed) = output(Command::new("tar").arg("--numeric-owner").arg("-tvf").arg(&layer));
        let entries: Vec<(&str, &str, &str)> = listed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .map(|words| (words[0], words[1], words[5]))
            .collect();
        let expected = [
            ("drwxr-xr-x", "0/0", "etc/"),
            ("-rw-r--r--", "0/0", "etc/passwd"),
            ("drwxr-xr-x", "0/0", "etc/ssl/"),
            ("drwxr-xr-x", "0/0", "etc/ssl/certs/"),
            ("-rw-r--r--", "0/0", "etc/ssl/certs/ca-certificates.crt"),
            ("-rwxr-xr-x", "0/0", program),
        ];
        assert_eq!(entries, expected);
        assert_eq!(member(&layer, program), program.as_bytes());
        let certificates = String::from_utf8(member(&layer, "etc/ssl/certs/ca-certificates.crt")).unwrap();
        assert!(certificates.matches("-----BEGIN CERTIFICATE-----").count() > 100);

        let configuration = configuration(&archive);
        assert_eq!(configuration["config"]["User"], "65532:65532");
        assert_eq!(configuration["config"]["Entrypoint"], serde_json::json!([format!("/{program}")]));
        let labels = &configuration["config"]["Labels"];
        assert_eq!(labels["org.opencontainers.image.title"], program);
        assert_eq!(labels["org.opencontainers.image.revision"], "abc");
        let (_, digest) = output(Command::new("sha256sum").arg(&layer));
        let digest = format!("sha256:{}", digest.split(' ').next().unwrap());
        assert_eq!(configuration["rootfs"]["diff_ids"], serde_json::json!([digest]));
        let version = env!("CARGO_PKG_VERSION");
        let tags = &json(&archive, "manifest.json")[0]["RepoTags"];
        assert_eq!(*tags, serde_json::json!([format!("{program}:{version}")]));
    }
}

#[test]
fn the_same_tree_packs_to_the_same_bytes_whenever_and_by_whomever() {
    let (one, other) = (Tree::new(), Tree::new());
    let first = one.packed("tidings-sidecar");
    let (moved, said) =
        output(Command::new("sh").args(["-c", "umask 077; chmod -R go-rwx \"$0\""]).arg(other.path(".")));
    assert!(moved, "{said}");
    let (aged, said) =
        output(Command::new("touch").arg("-d2020-01-01").arg(other.path("programs/tidings-sidecar")));
    assert!(aged, "{said}");
    assert!(std::fs::read(first).unwrap() == std::fs::read(other.packed("tidings-sidecar")).unwrap());
}

#[test]
fn what_the_dockerfile_says_is_what_is_packed_and_what_the_packer_does_not_know_is_refused() {
    let tree = Tree::new();
    tree.change_dockerfile("USER 65532:65532", "USER 4711:4711");
    tree.change_dockerfile(r#"ENTRYPOINT ["/tidings"]"#, r#"ENTRYPOINT ["/tidings", "dev"]"#);
    let configuration = configuration(&tree.packed("tidings"));
    assert_eq!(configuration["config"]["User"], "4711:4711");
    assert_eq!(configuration["config"]["Entrypoint"], serde_json::json!(["/tidings", "dev"]));
    for more in ["RUN rm /etc/passwd", "COPY --from=build /usr/bin/ls /", "EXPOSE 8787"] {
        let tree = Tree::new();
        tree.change_dockerfile("USER 65532:65532", more);
        let (packed, said) = tree.pack("out");
        assert!(!packed && said.contains("which is not known here"), "{more}: {said}");
    }
}

#[test]
fn the_dockerfile_builds_what_the_packer_packs_with_the_workspaces_rust() {
    let dockerfile = std::fs::read_to_string(in_workspace("Dockerfile")).unwrap();
    let (build, images) = dockerfile.split_once("FROM scratch").unwrap();
    assert!(build.contains("programs=$(image/build)"));
    assert!(build.contains(&format!("for program in {}; do", PROGRAMS.join(" "))));
    assert!(build.contains(r#"image/rootfs "$program" "$programs" "/rootfs/$program""#));
    for (target, program) in ["operator", "sidecar", "cli"].iter().zip(PROGRAMS) {
        let stage = images.split("\nFROM ").find(|stage| stage.starts_with(&format!("base AS {target}\n")));
        assert!(stage.unwrap().contains(&format!("COPY --from=build /rootfs/{program}/ /\n")), "{target}");
    }
    assert!(build.contains(&format!("ARG RUST_VERSION={}\n", env!("CARGO_PKG_RUST_VERSION"))));
}
