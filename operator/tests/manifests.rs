//! Manifests as people write them: what is read, what is refused, and where.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proptest::prelude::*;
use tidings_operator::Reason;
use tidings_operator::lint::{assume_secrets, judge, lint};
use tidings_operator::manifests::{Loaded, load};
use tidings_operator::objects::Text;
use tidings_plan::{ObjectName, SecretText};

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: a}\n";

fn load_text(text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    load(&[folder.path().to_owned()])
}

fn reasons(loaded: &Loaded) -> Vec<(Reason, usize)> {
    loaded.findings.iter().map(|found| (found.finding.reason, found.line)).collect()
}

#[test]
fn documents_lists_and_both_forms_of_a_secret_are_read() {
    let data = format!("{SECRET}data: {{key: aHVzaA==}}\n---\n# nothing here\n---\n");
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: t}\n  stringData: {key: plain}\n";
    let loaded = load_text(&(data + list));
    assert_eq!(reasons(&loaded), []);
    let text = |namespace: &str, name: &str| {
        loaded.objects.secrets[&ObjectName::new(namespace, name)]["key"].clone()
    };
    let kept = |text: &str| Text::from(SecretText::new(text));
    assert_eq!((text("a", "s"), text("default", "t")), (kept("hush"), kept("plain")));
}

#[test]
fn kinds_of_others_are_passed_over_and_our_own_misspelt_ones_are_not() {
    let loaded = load_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\napiVersion: tidings.dev/v1\nkind: Webhook\n",
    );
    assert_eq!(reasons(&loaded), [(Reason::InvalidManifest, 5)]);
    assert!(loaded.findings[0].finding.message.contains("tidings.dev/v1alpha1"));
}

#[test]
fn broken_yaml_and_a_duplicate_are_told_with_their_lines() {
    let loaded = load_text("a: 1\nb: [\n");
    assert_eq!(reasons(&loaded)[0].0, Reason::InvalidManifest);
    assert!(loaded.findings[0].line >= 2, "{:?}", loaded.findings);
    let loaded = load_text(&format!("{SECRET}---\n{SECRET}"));
    assert_eq!(reasons(&loaded), [(Reason::DuplicateObject, 7)]);
    let nowhere = load(&[Path::new("/nowhere/at/all").to_owned()]);
    assert_eq!(nowhere.findings.len(), 1);
}

#[test]
fn a_text_that_is_nested_without_end_is_told_and_not_followed() {
    // Each of them is in order, and all together are as deep as their sum.
    let chain =
        |at: usize| format!("a{at}: &a{at} {}*a{}{}\n", "[".repeat(50), at.max(1) - 1, "]".repeat(50));
    let aliases = "a0: &a0 x\n".to_owned() + &(1..40).map(chain).collect::<Vec<_>>().concat();
    for (text, line) in
        [("- ".repeat(100_000), 1), ("[".repeat(100_000), 1), ("? ".repeat(100_000), 1), (aliases, 4)]
    {
        assert_eq!(reasons(&load_text(&text)), [(Reason::InvalidManifest, line)], "{:?}", &text[..2]);
    }
    let anchored = load_text("a: &a [1]\nb: {c: *a}\n");
    assert!(!anchored.findings[0].finding.message.contains("nested"), "{:?}", anchored.findings);
}

#[test]
fn what_is_wrong_at_the_end_is_told_on_a_line_that_is_there() {
    for text in ["a: 1\nb", "a: 1\nb\n", "a: [\n", "a: \"\n", "a: 1\n?", "a: 1\n?\n"] {
        let found = reasons(&load_text(text));
        assert!(
            found.iter().all(|(_, line)| (1..=text.lines().count()).contains(line)),
            "{text:?}: {found:?}"
        );
    }
}

#[test]
fn a_secrets_text_is_in_no_finding() {
    let loaded = load_text(&format!(
        "{SECRET}data: {{key: \"hush is not base64!\"}}\n---\n{SECRET}stringData: [hush]\n---\n\
         {SECRET}stringData: {{key: [hush]}}\n---\n{SECRET}type: [hush]\n---\n{SECRET}data: hush\n"
    ));
    assert!(loaded.findings.len() >= 5, "{:?}", loaded.findings);
    for found in &loaded.findings {
        assert!(!found.finding.message.contains("hush"), "{}", found.finding.message);
    }
    let fields: Vec<_> = loaded.findings.iter().map(|found| found.finding.field.as_str()).collect();
    assert!(
        ["data.key", "stringData", "stringData.key", "type"].iter().all(|field| fields.contains(field)),
        "{fields:?}"
    );
}

const WEBHOOK: &str = "apiVersion: tidings.dev/v1alpha1
kind: Webhook
metadata: {name: mail, namespace: shop}
spec:
  authServerRef: {name: logto, namespace: auth}
  events: [PostSignIn]
  filter: event.type == 'x'
  endpoint:
    url: https://10.1.2.3/hook
    headers: [{name: x-token, valueFrom: {secretKeyRef: {name: token, key: token}}}]
    tls: {caSecretRef: {name: ca, key: ca.crt}}
  secretRef: {name: signing}
";

const SERVER: &str = "---
apiVersion: tidings.dev/v1alpha1
kind: AuthServer
metadata: {name: logto, namespace: auth}
spec:
  allowedNamespaces: {from: All}
  ingest: {signingKeyRef: {name: hook, key: signingKey}}
  egress: {allow: [10.0.0.0/8]}
";

const REPLAY: &str = "---
apiVersion: tidings.dev/v1alpha1
kind: WebhookReplay
metadata: {name: again, namespace: shop}
spec:
  webhookRef: {name: mail}
  from: 2026-01-01T00:00:00Z
  to: 2026-01-02T00:00:00Z
";

/// What lint has to say: errors, and warnings, each with its line.
fn said(text: &str, assume: bool) -> [Vec<(Reason, usize)>; 2] {
    let mut loaded = load_text(text);
    if assume {
        assume_secrets(&mut loaded);
    }
    let report = judge(&loaded);
    [report.errors, report.warnings]
        .map(|found| found.iter().map(|one| (one.finding.reason, one.line)).collect())
}

#[test]
fn without_an_auth_server_all_that_needs_none_is_validated() {
    let not_among = (Reason::AuthServerNotFound, 5);
    assert_eq!(said(WEBHOOK, true), [vec![], vec![not_among]]);
    let broken = WEBHOOK.replace("event.type == 'x'", "event.(");
    assert_eq!(said(&broken, true), [vec![(Reason::InvalidFilter, 7)], vec![not_among]]);
    let no_url = WEBHOOK.replace("https://10.1.2.3/hook", "https://:99999/");
    assert_eq!(said(&no_url, true)[0], [(Reason::InvalidEndpoint, 9)]);
    let unknown = WEBHOOK.replace("[PostSignIn]", "[Post.Sign.In]");
    assert_eq!(said(&unknown, true)[1], [not_among, (Reason::UnknownEvent, 6)]);
    assert_eq!(said(WEBHOOK, false)[0], [(Reason::SecretNotFound, 12)], "Secrets need no AuthServer");
}

#[test]
fn secrets_that_are_not_in_git_are_accepted_where_that_is_said_and_what_else_is_wrong_is_not() {
    let text = WEBHOOK.to_owned() + SERVER;
    assert_eq!(said(&text, true), [vec![], vec![]]);
    let [errors, _] = said(&text, false);
    assert!(errors.contains(&(Reason::SecretNotFound, 19)), "{errors:?}");
    let blocked = text.replace("10.0.0.0/8", "192.168.0.0/16");
    assert_eq!(said(&blocked, true)[0], [(Reason::AddressBlocked, 9)]);
    // One that is there has to have the key.
    let there = text
        + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: signing, namespace: shop}\nstringData: {other: x}\n";
    assert_eq!(said(&there, true)[0], [(Reason::SecretKeyNotFound, 12)]);
}

#[test]
fn a_webhook_replay_is_validated_as_the_cluster_does() {
    let text = |replay: &str| WEBHOOK.to_owned() + SERVER + replay;
    assert_eq!(said(&text(REPLAY), true), [vec![], vec![]]);
    let of = |from: &str, to: &str| said(&text(&REPLAY.replace(from, to)), true);
    assert_eq!(of("to: 2026-01-02", "to: 2025-01-02")[0], [(Reason::InvalidSchema, 25)]);
    let whole = "from: 2026-01-01T00:00:00Z\n  to: 2026-01-02T00:00:00Z";
    assert_eq!(of(whole, "from: 2026-01-01")[0], [(Reason::InvalidWindow, 27)]);
    assert_eq!(of("to: 2026", "ratePerSecond: 0\n  to: 2026")[0], [(Reason::InvalidSchema, 28)]);
    assert_eq!(
        of("name: mail}\n  from", "name: letters}\n  from"),
        [vec![], vec![(Reason::WebhookNotFound, 26)]]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,200}") {
        load_text(&text);
    }

    #[test]
    fn a_manifest_with_a_changed_character_is_judged_or_told(at in any::<prop::sample::Index>(), with in "[ -~\n]") {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo/manifests.yaml");
        let mut text: Vec<char> = std::fs::read_to_string(demo).unwrap().chars().collect();
        let at = at.index(text.len());
        text[at] = with.chars().next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("all.yaml"), text.into_iter().collect::<String>()).unwrap();
        let report = lint(&[folder.path().to_owned()]);
        prop_assert!(report.objects > 0 || !report.errors.is_empty());
    }
}

#[test]
fn a_service_among_the_manifests_is_checked_and_one_that_is_not_is_left_to_the_cluster() {
    let team = "apiVersion: tidings.dev/v1alpha1\nkind: AuthServer\nmetadata: {name: logto, namespace: a}\nspec: {}\n---\n\
        apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: a}\nstringData: {signingKey: whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD}\n---\n\
        apiVersion: tidings.dev/v1alpha1\nkind: Webhook\nmetadata: {name: w, namespace: a}\nspec:\n  authServerRef: {name: logto}\n  events: [PostSignIn]\n  secretRef: {name: s}\n  endpoint:\n    serviceRef: {name: mailer, port: 80}\n---\n";
    let service = |spec: &str| {
        format!(
            "{team}apiVersion: v1\nkind: Service\nmetadata: {{name: mailer, namespace: a}}\nspec: {spec}\n"
        )
    };
    let cases = [
        (team.to_owned(), None),
        (service("{selector: {app: mailer}, ports: [{port: 80}]}"), None),
        (service("{selector: {app: mailer}, ports: [{port: 81}]}"), Some(Reason::ServicePortNotFound)),
        (service("{type: ExternalName, externalName: x.example.com}"), Some(Reason::ServiceNotAllowed)),
        (service("{ports: [{port: 80}]}"), Some(Reason::ServiceNotAllowed)),
    ];
    for (text, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("all.yaml"), &text).unwrap();
        let report = lint(&[folder.path().to_owned()]);
        let found: Vec<_> = report.errors.iter().map(|found| (found.finding.reason, found.line)).collect();
        assert_eq!(found.first().map(|(reason, _)| *reason), expected, "{text}: {found:?}");
        assert!(
            found.iter().all(|(_, line)| (11..=20).contains(line)),
            "at the Webhook's serviceRef: {found:?}"
        );
    }
}
