//! What the model holds of Secrets: the texts under the keys that objects refer to, and no other.
//!
//! In: versions, as the watch tells them, and contents, as they were read. Out: which keys of which Secrets are
//! to be read. It must never hold a text that nobody refers to, and never take an old content for a new one.

use std::collections::{BTreeMap, BTreeSet};

use tidings_plan::ObjectName;

use super::World;
use super::change::SecretContent;
use crate::Objects;
use crate::resolve::{self, SecretKeys};

/// What an object refers to: Secrets, and the keys in each.
pub(super) type Wants = BTreeMap<ObjectName, BTreeSet<String>>;

/// A Secret: its version as the watch told it, and what is held of it.
#[derive(Debug, Clone, Default)]
pub(super) struct SecretState {
    pub(super) seen: Option<String>,
    held: Option<Held>,
}

/// The version that was read, and the keys that were read of it.
#[derive(Debug, Clone)]
struct Held {
    version: String,
    keys: BTreeSet<String>,
}

/// Who refers to a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum User {
    Server(ObjectName),
    Webhook(ObjectName),
}

// === impl SecretState ===

impl SecretState {
    /// Whether what is held is as new as what the watch told, and has these keys.
    fn is_current(&self, keys: &BTreeSet<String>) -> bool {
        match (&self.seen, &self.held) {
            (None, _) => true,
            (Some(seen), Some(held)) => !is_newer(seen, &held.version) && keys.is_subset(&held.keys),
            (Some(_), None) => false,
        }
    }
}

/// Whether a resource version is newer than another; they are whole numbers that rise.
fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u128>(), than.parse::<u128>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}

// === impl World ===

impl World {
    /// The Secrets whose content is to be read, once each, with the keys that are wanted.
    pub fn take_secrets_to_read(&mut self) -> Vec<(ObjectName, BTreeSet<String>)> {
        let asked = std::mem::take(&mut self.dirty.secrets).into_iter();
        let asked = asked.map(|name| (self.wanted(&name), name));
        let is_old = |(keys, name): &(BTreeSet<String>, ObjectName)| {
            self.secrets.get(name).is_some_and(|state| !state.is_current(keys))
        };
        asked.filter(is_old).map(|(keys, name)| (name, keys)).collect()
    }

    pub(super) fn put_secret(&mut self, name: ObjectName, version: String) {
        let state = self.secrets.entry(name.clone()).or_default();
        if state.seen.as_ref().is_some_and(|seen| !is_newer(&version, seen)) {
            return;
        }
        state.seen = Some(version);
        if self.users.contains_key(&name) {
            self.dirty.secrets.insert(name);
        } else {
            self.touched(&name);
        }
    }

    pub(super) fn secret_read(&mut self, name: &ObjectName, content: Option<SecretContent>) {
        if !self.users.contains_key(name) {
            return;
        }
        let wanted = self.wanted(name);
        let state = self.secrets.entry(name.clone()).or_default();
        if let Some(SecretContent { version, keys, texts, is_labelled }) = content {
            // It may be there although the watch has not told of it yet.
            state.seen.get_or_insert_with(|| version.clone());
            state.held = Some(Held { version, keys });
            self.objects.put_secret(name.clone(), texts, is_labelled);
            self.forget_unwanted(name);
        } else {
            state.held = state.seen.clone().map(|version| Held { version, keys: wanted.clone() });
            self.objects.forget_secret(name);
        }
        if !self.secrets[name].is_current(&wanted) {
            self.dirty.secrets.insert(name.clone());
        }
        self.secret_changed(name);
    }

    /// As if it were not there, but for the reason. Whoever reads it asks again.
    pub(super) fn secret_forbidden(&mut self, name: &ObjectName) {
        if self.is_wanted(name) {
            self.secret_read(name, None);
            self.objects.forbidden_secrets.insert(name.clone());
        }
    }

    /// Whether anybody refers to a Secret.
    pub fn is_wanted(&self, name: &ObjectName) -> bool {
        self.users.contains_key(name)
    }

    pub(super) fn secret_changed(&mut self, name: &ObjectName) {
        for user in self.users.get(name).into_iter().flat_map(BTreeMap::keys) {
            match user {
                User::Server(name) => drop(self.dirty.servers.insert(name.clone())),
                User::Webhook(name) => drop(self.dirty.webhooks.insert(name.clone())),
            }
        }
    }

    /// Notes what an object refers to now; what nobody refers to any more is forgotten.
    pub(super) fn refer(&mut self, user: &User, old: &Wants, new: &Wants) {
        for name in old.keys().filter(|name| !new.contains_key(name)) {
            if let Some(users) = self.users.get_mut(name) {
                users.remove(user);
            }
            self.forget_unwanted(name);
        }
        for (name, keys) in new {
            self.users.entry(name.clone()).or_default().insert(user.clone(), keys.clone());
            self.forget_unwanted(name);
            self.dirty.secrets.insert(name.clone());
        }
    }

    /// Whether what is held of these is as new as what the watch told.
    pub(super) fn secrets_are_current(&self, wants: &Wants) -> bool {
        wants.iter().all(|(name, keys)| self.secrets.get(name).is_none_or(|state| state.is_current(keys)))
    }

    /// The keys of a Secret that anybody refers to.
    fn wanted(&self, name: &ObjectName) -> BTreeSet<String> {
        self.users.get(name).into_iter().flat_map(BTreeMap::values).flatten().cloned().collect()
    }

    fn forget_unwanted(&mut self, name: &ObjectName) {
        let wanted = self.wanted(name);
        let state = self.secrets.get_mut(name);
        if wanted.is_empty() {
            self.users.remove(name);
            self.objects.forget_secret(name);
            if let Some(state) = state {
                state.held = None;
            }
            return;
        }
        if let Some(held) = state.and_then(|state| state.held.as_mut()) {
            held.keys.retain(|key| wanted.contains(key));
        }
        if let Some(texts) = self.objects.secrets.get_mut(name) {
            texts.retain(|key, _| wanted.contains(key));
        }
    }
}

/// What an object refers to, with its namespace.
pub(super) fn wants(user: &ObjectName, keys: SecretKeys<'_>) -> Wants {
    let owned = |keys: BTreeSet<&str>| keys.into_iter().map(str::to_owned).collect();
    keys.into_iter().map(|(name, keys)| (ObjectName::new(&user.namespace, name), owned(keys))).collect()
}

pub(super) fn wants_of_server(objects: &Objects, name: &ObjectName) -> Wants {
    let server = objects.auth_servers.get(name);
    server.map(|server| wants(name, resolve::secrets_of_server(&server.spec))).unwrap_or_default()
}
