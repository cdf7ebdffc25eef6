//! What a plan leaves out where not all of its Webhooks fit.
//!
//! In: the Webhooks that are wanted, and those that run. Out: the names of those that have to stay out. A
//! Webhook that runs and did not grow comes before every other one, so that nobody is thrown out because
//! somebody else grew. After that those of the namespaces that take least come first, so that whoever takes
//! most loses first. The same input gives the same answer. It must never leave out more than a shard needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{MAX_SHARDS, Shard, fits, number_of};
use crate::{ObjectName, WebhookPlan};

/// The bytes that a Webhook takes of a plan before it is packed. Text that does not pack takes as many after it.
pub fn bytes(webhook: &WebhookPlan) -> usize {
    serde_json::to_vec(webhook).map_or(usize::MAX, |json| json.len())
}

/// The Webhooks that stay out of a plan so that the rest fits; `running`: those of the plan that runs.
pub fn without_room(wanted: &[WebhookPlan], running: &[WebhookPlan]) -> BTreeSet<ObjectName> {
    let mut parts = vec![Vec::new(); MAX_SHARDS];
    for webhook in in_order(wanted, running) {
        parts[number_of(&webhook.webhook, MAX_SHARDS)].push(webhook);
    }
    let beyond = parts.iter().flat_map(|part| &part[most_that_fit(part)..]);
    beyond.map(|webhook| webhook.webhook.clone()).collect()
}

/// Those that keep their place first, and then those of the namespaces that take least.
fn in_order<'a>(wanted: &'a [WebhookPlan], running: &[WebhookPlan]) -> Vec<&'a WebhookPlan> {
    let running: HashMap<_, _> = running.iter().map(|webhook| (&webhook.webhook, webhook)).collect();
    let mut shares = BTreeMap::<&str, usize>::new();
    for webhook in wanted {
        *shares.entry(&webhook.webhook.namespace).or_default() += bytes(webhook);
    }
    let mut order: Vec<_> = wanted.iter().collect();
    order.sort_by_cached_key(|webhook| {
        let keeps = running.get(&webhook.webhook).is_some_and(|before| !has_grown(before, webhook));
        (!keeps, shares[webhook.webhook.namespace.as_str()], &webhook.webhook)
    });
    order
}

/// Whether it takes more than before, as it stands or packed.
fn has_grown(before: &WebhookPlan, after: &WebhookPlan) -> bool {
    let packed = |webhook| Shard::pack(&[webhook]).bytes.len();
    before != after && (bytes(after) > bytes(before) || packed(after) > packed(before))
}

/// How many from the first on fit into one shard.
fn most_that_fit(part: &[&WebhookPlan]) -> usize {
    if fits(&in_plan_order(part)) {
        return part.len();
    }
    let (mut fitting, mut beyond) = (0, part.len());
    while beyond - fitting > 1 {
        let middle = usize::midpoint(fitting, beyond);
        if fits(&in_plan_order(&part[..middle])) {
            fitting = middle;
        } else {
            beyond = middle;
        }
    }
    fitting
}

/// As the plan has them: how well a shard packs depends on what stands beside what.
fn in_plan_order<'a>(part: &[&'a WebhookPlan]) -> Vec<&'a WebhookPlan> {
    let mut part = part.to_vec();
    part.sort_by_key(|webhook| &webhook.webhook);
    part
}

#[cfg(test)]
mod tests {
    use super::super::tests::webhook;
    use super::super::{Plan, digest, split};
    use super::*;
    use crate::SecretText;

    /// The nth Webhook of a namespace whose name puts it into the first shard: what fits there is soon full.
    fn of_first_shard(namespace: &str, nth: usize, text: &str) -> WebhookPlan {
        let names = (0..).map(|at| ObjectName::new(namespace, format!("hook-{at}")));
        let name = names.filter(|name| number_of(name, MAX_SHARDS) == 0).nth(nth).unwrap();
        let mut one = webhook(nth);
        one.endpoint.headers.insert("x".to_owned(), SecretText::new(text));
        WebhookPlan { webhook: name, ..one }
    }

    /// So many Webhooks, each with so many bytes of text that does not pack well.
    fn large(namespace: &str, count: usize, size: usize) -> Vec<WebhookPlan> {
        let text = |at: usize| -> String {
            (0..size / 32).map(|block| digest(format!("{namespace} {at} {block}").as_bytes())).collect()
        };
        (0..count).map(|at| of_first_shard(namespace, at, &text(at))).collect()
    }

    fn plan_of(mut webhooks: Vec<WebhookPlan>) -> Plan {
        webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
        Plan { webhooks, ..Plan::empty(ObjectName::new("auth", "logto")) }
    }

    fn without(plan: &Plan, out: &BTreeSet<ObjectName>) -> Plan {
        let kept = plan.webhooks.iter().filter(|one| !out.contains(&one.webhook));
        plan_of(kept.cloned().collect())
    }

    #[test]
    fn what_fits_is_left_whole() {
        let plan = plan_of((0..200).map(webhook).collect());
        assert_eq!(without_room(&plan.webhooks, &[]), BTreeSet::new());
    }

    #[test]
    fn where_not_all_fit_the_namespace_that_takes_most_loses_and_the_rest_is_a_plan() {
        let plan = plan_of([large("modest", 10, 2_000), large("hog", 30, 60_000)].concat());
        assert!(split(&plan, 1).is_err());
        let out = without_room(&plan.webhooks, &[]);
        assert!(out.iter().all(|name| name.namespace == "hog"), "{out:?}");
        split(&without(&plan, &out), 1).unwrap();
        assert!(out.len() < 20, "no more than has to be: {}", out.len());
    }

    #[test]
    fn what_runs_stays_when_another_team_grows_beyond_what_is_left() {
        let first = plan_of((0..6).flat_map(|team| large(&format!("team-{team}"), 4, 60_000)).collect());
        let running = without(&first, &without_room(&first.webhooks, &[]));
        let grown = plan_of([running.webhooks.clone(), large("aaa", 1, 60_000)].concat());
        let out = without_room(&grown.webhooks, &running.webhooks);
        assert!(!out.is_empty() && out.iter().all(|name| name.namespace == "aaa"), "{out:?}");
        // One that ran and grows has to find its place among the new ones.
        let mut edited = running.clone();
        let name = edited.webhooks[0].webhook.clone();
        let [larger] = large("x", 1, 120_000).try_into().unwrap();
        edited.webhooks[0] = WebhookPlan { webhook: name.clone(), ..larger };
        assert_eq!(without_room(&edited.webhooks, &running.webhooks), BTreeSet::from([name]));
    }

    #[test]
    fn one_that_keeps_its_length_and_no_longer_packs_has_grown() {
        let [noise] = large("shop", 1, 3_200).try_into().unwrap();
        let flat = of_first_shard("shop", 0, &"a".repeat(3_200));
        assert_eq!(bytes(&flat), bytes(&noise));
        assert!(has_grown(&flat, &noise) && !has_grown(&noise, &flat));
    }

    #[test]
    fn a_shard_that_packs_well_is_bounded_by_what_it_unpacks_to() {
        let text = "a".repeat(60_000);
        let plan = plan_of((0..80).map(|at| of_first_shard("pads", at, &text)).collect());
        assert!(split(&plan, 1).is_err(), "nobody would read it");
        let out = without_room(&plan.webhooks, &[]);
        split(&without(&plan, &out), 1).unwrap();
    }
}
