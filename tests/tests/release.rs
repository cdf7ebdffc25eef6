//! What is released, made from programs that are some bytes: names, sums, contents, versions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tidings_tests::charts::helm_works;
use tidings_tests::process::in_workspace;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where the images of this release are.
const REGISTRY: &str = "registry.example.com:5000/tidings";

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn versions(root: &Path, more: &[&str]) -> (bool, String) {
    output(Command::new(in_workspace("release/versions")).args(more).arg("--root").arg(root))
}

/// A release made of programs that hold their own names.
fn released(folder: &Path) -> std::path::PathBuf {
    let (programs, out) = (folder.join("programs"), folder.join("dist"));
    std::fs::create_dir(&programs).unwrap();
    for program in ["tidings", "tidings-operator", "tidings-sidecar"] {
        std::fs::write(programs.join(program), program).unwrap();
    }
    let mut command = Command::new(in_workspace("release/build"));
    command.args(["--draft", "--url", "https://releases.example.com/v1/", "--registry", REGISTRY]);
    command.arg("--programs").arg(&programs).arg("--out").arg(&out).env("SOURCE_DATE_EPOCH", "1764000000");
    let (built, said) = output(&mut command);
    assert!(built, "{said}");
    out
}

fn sbom(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn the_version_is_written_in_one_place_and_everything_follows_it() {
    let (agreed, said) = versions(&in_workspace("."), &[]);
    assert!(agreed, "{said}");
    assert_eq!(said.trim(), VERSION);
}

#[test]
fn a_file_with_another_version_is_named() {
    let root = TempDir::new().unwrap();
    let put = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("Cargo.toml", "[workspace.package]\nversion = \"1.2.3\"\n");
    put("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-11-24\n\n- One thing.\n");
    put("Dockerfile", "FROM scratch AS base\nARG VERSION=1.2.3\n");
    put("charts/one/Chart.yaml", "version: 1.2.3\nappVersion: \"1.2.3\"\n");
    put("examples/pod.yaml", "image: tidings-sidecar:1.2.3\nimage: registry.example.com/tidings:1.2.3\n");
    let at = |more: &[&str]| versions(root.path(), more);
    assert_eq!(at(&["--released"]), (true, "1.2.3\n".to_owned()));

    let cases = [
        ("Dockerfile", "ARG VERSION=1.2.2\n", "Dockerfile:1: 1.2.2"),
        ("charts/one/Chart.yaml", "version: 1.2.3\nappVersion: 1.2.2\n", "charts/one/Chart.yaml:2: 1.2.2"),
        (
            "charts/two/Chart.yaml",
            "version: 1.2.3\ndependencies:\n  - name: tidings-sidecar\n    alias: sidecar\n    version: 1.2.2\n",
            "charts/two/Chart.yaml: needs 1.2.2",
        ),
        (
            "examples/pod.yaml",
            "x\nimage: registry.example.com/a/tidings-sidecar:1.2.2\n",
            "examples/pod.yaml:2: 1.2.2",
        ),
        (
            "CHANGELOG.md",
            "## Unreleased\n\n## 1.3.0 - 2026-11-24\n",
            "1.3.0 is newer than the workspace's 1.2.3",
        ),
    ];
    for (file, text, expected) in cases {
        let path = root.path().join(file);
        let before = std::fs::read_to_string(&path).ok();
        put(file, text);
        let (agreed, said) = at(&[]);
        assert!(!agreed && said.contains(expected), "{expected}: {said}");
        before.map_or_else(|| std::fs::remove_file(&path).unwrap(), |text| put(file, &text));
    }
    // What is not released yet is no mistake, until it is to be released.
    for text in ["## Unreleased\n\n- One.\n", "## Unreleased\n\n- One.\n\n## 1.2.3 - 2026-11-24\n"] {
        put("CHANGELOG.md", text);
        assert!(at(&[]).0, "{text}");
        assert!(!at(&["--released"]).0, "{text}");
    }
}

#[test]
fn a_release_holds_each_program_with_its_sum_and_the_plugin_where_krew_looks() {
    let folder = TempDir::new().unwrap();
    let out = released(folder.path());
    let (right, said) = output(Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&out));
    assert!(right, "{said}");
    let names: Vec<_> = said.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    let mut there: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "SHA256SUMS")
        .collect();
    there.sort();
    assert_eq!(names, there, "each file has a sum");

    let plugin = names.iter().find(|name| name.starts_with("kubectl-tidings")).unwrap();
    let (_, listed) = output(Command::new("tar").arg("-tzvf").arg(out.join(plugin)));
    let entries: Vec<_> =
        listed.lines().map(|line| (&line[..10], line.rsplit(' ').next().unwrap())).collect();
    let licences = [("-rw-r--r--", "LICENSE"), ("-rw-r--r--", "THIRD-PARTY-LICENSES")];
    assert_eq!((&entries[..2], &entries[2..]), (&licences[..], &[("-rwxr-xr-x", "kubectl-tidings")][..]));
    let (_, notices) =
        output(Command::new("tar").arg("-xzOf").arg(out.join(plugin)).arg("THIRD-PARTY-LICENSES"));
    for expected in ["\nrustls 0.", "\ntokio 1.", "GNU LESSER GENERAL PUBLIC LICENSE", "SQLite"] {
        assert!(notices.contains(expected), "{expected}");
    }
    assert!(!notices.contains("\nproptest "), "what is for tests alone is in no program");
    let krew = std::fs::read_to_string(out.join("tidings.yaml")).unwrap();
    let sums = std::fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    let sum = sums.lines().find_map(|line| line.strip_suffix(&format!("  {plugin}"))).unwrap();
    for expected in [
        format!("  version: v{VERSION}\n"),
        format!("      uri: https://releases.example.com/v1/{plugin}\n"),
        format!("      sha256: {sum}\n"),
    ] {
        assert!(krew.contains(&expected), "{expected}: {krew}");
    }
    assert!(!krew.contains("{{"), "{krew}");
    let definitions = std::fs::read_to_string(out.join(format!("tidings-crds-{VERSION}.yaml"))).unwrap();
    assert_eq!(definitions.matches("\nkind: CustomResourceDefinition\n").count(), 4);
    for program in ["tidings", "tidings-operator", "tidings-sidecar"] {
        let image = format!("{program}-{VERSION}-image-linux-");
        assert!(names.iter().any(|name| name.starts_with(&image)), "{image}: {names:?}");
        assert!(names.contains(&format!("{program}-{VERSION}.cdx.json")), "{names:?}");
    }
    a_released_chart_needs_no_value(&out);
}

/// The images that a packaged chart names, with these arguments.
fn images(chart: &Path, arguments: &[&str]) -> Vec<String> {
    let chart = ["template", "tidings", chart.to_str().unwrap(), "--set", "injection.enabled=true"];
    let rendered = helm_works(&[&chart, arguments].concat());
    let images = rendered.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    images.map(|image| image.trim_matches([',', '"']).to_owned()).collect()
}

fn a_released_chart_needs_no_value(out: &Path) {
    let chart = out.join(format!("tidings-{VERSION}.tgz"));
    let released = images(&chart, &[]);
    let is_of = |image: &str, registry: &str| {
        image.starts_with(&format!("{registry}/tidings")) && image.ends_with(&format!(":{VERSION}"))
    };
    assert!(released.len() > 1 && released.iter().all(|image| is_of(image, REGISTRY)), "{released:?}");
    for value in ["image.registry=own.example.com", "global.imageRegistry=own.example.com"] {
        let own = images(&chart, &["--set", value]);
        assert!(own.iter().all(|image| is_of(image, "own.example.com")), "{value}: {own:?}");
    }
    let (_, readme) = output(Command::new("tar").arg("-xzOf").arg(&chart).arg("tidings/README.md"));
    let row = format!("| `image.registry` | `\"{REGISTRY}\"` |");
    assert!(readme.contains(&row), "the table of values tells it: {row}");
    assert!(out.join(format!("tidings-crds-{VERSION}.tgz")).exists());
}

#[test]
fn a_registry_that_is_none_is_refused_and_without_one_the_charts_name_none() {
    let folder = TempDir::new().unwrap();
    let charts = |arguments: &[&str]| {
        output(Command::new(in_workspace("release/charts")).args(arguments).arg(folder.path()))
    };
    for registry in
        ["https://registry.example.com", "Registry.example.com/Tidings", "registry.example.com/a b", "a/#"]
    {
        let (taken, said) = charts(&["--registry", registry]);
        assert!(!taken && said.contains("is not a registry with a path"), "{registry}: {said}");
    }
    let (packaged, said) = charts(&[]);
    assert!(packaged, "{said}");
    let images = images(&folder.path().join(format!("tidings-{VERSION}.tgz")), &[]);
    assert!(images.iter().all(|image| image.starts_with("tidings")), "{images:?}");
}

#[test]
fn the_bill_of_materials_names_each_crate_that_is_linked_with_its_licence_and_sum() {
    let script = |package: &str| {
        let made = Command::new(in_workspace("release/sbom")).arg(package).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        made.stdout
    };
    let text = script("tidings-pod");
    assert!(text == script("tidings-pod"), "the same tree makes the same document");
    let bom = sbom(&text);
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert!(bom["serialNumber"].as_str().unwrap().starts_with("urn:uuid:"));
    assert_eq!(bom["metadata"]["component"]["purl"], format!("pkg:cargo/tidings-pod@{VERSION}"));
    let components = bom["components"].as_array().unwrap();
    let scope = |name: &str| {
        let found = components.iter().find(|component| component["name"] == name);
        found.map(|component| component["scope"].as_str().unwrap())
    };
    // Linked, run at build time, and not of this program at all.
    assert_eq!(
        ["rustls", "libsqlite3-sys", "sqlite", "serde_derive", "syn", "redb", "proptest"].map(scope),
        [
            Some("required"),
            Some("required"),
            Some("required"),
            Some("excluded"),
            Some("excluded"),
            None,
            None
        ]
    );
    for component in components {
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let purl = component["purl"].as_str().unwrap();
        let is_ours = component["name"].as_str().unwrap().starts_with("tidings-");
        if purl.starts_with("pkg:cargo/") && !is_ours {
            assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), Some(64), "{component}");
        }
    }
    let known: std::collections::BTreeSet<_> = (components.iter().chain([&bom["metadata"]["component"]]))
        .map(|component| component["bom-ref"].as_str().unwrap())
        .collect();
    assert_eq!(known.len(), components.len() + 1, "each component once");
    for dependency in bom["dependencies"].as_array().unwrap() {
        let on = dependency["dependsOn"].as_array().unwrap();
        for name in on.iter().chain([&dependency["ref"]]) {
            assert!(known.contains(name.as_str().unwrap()), "{name}");
        }
    }
}
