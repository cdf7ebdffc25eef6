//! Services and `EndpointSlices` in the model: a Webhook is judged again when the Service that it names, or
//! what lies behind it, is another one.

use std::collections::BTreeSet;

use tidings_plan::ObjectName;

use super::World;
use super::change::Kind;
use crate::services::{Service, Services, Slice};

// === impl World ===

impl World {
    pub(super) fn put_service(&mut self, name: &ObjectName, service: Service) {
        if self.objects.services.put(name, service) {
            self.service_changed(name);
        }
    }

    pub(super) fn service_gone(&mut self, name: &ObjectName) {
        if self.objects.services.remove(name) {
            self.service_changed(name);
        }
    }

    pub(super) fn put_slice(&mut self, name: &ObjectName, slice: Slice) {
        for service in self.objects.services.put_slice(name, slice) {
            self.service_changed(&service);
        }
    }

    /// A slice that changed hands comes from one watch and goes from the other, in either order.
    pub(super) fn slice_gone(&mut self, kind: Kind, name: &ObjectName) {
        if self.objects.services.keeper(name) != kind.keeper() {
            return;
        }
        for service in self.objects.services.remove_slice(name) {
            self.service_changed(&service);
        }
    }

    pub(super) fn slices_of_kind(&self, kind: Kind) -> Vec<ObjectName> {
        let keeper = kind.keeper().into_iter();
        keeper.flat_map(|keeper| self.objects.services.slices(keeper)).cloned().collect()
    }

    /// Notes which Service a Webhook refers to now.
    pub(super) fn refer_to_service(
        &mut self,
        webhook: &ObjectName,
        old: Option<&ObjectName>,
        new: Option<ObjectName>,
    ) {
        if let Some(users) = old.and_then(|old| self.service_users.get_mut(old)) {
            users.remove(webhook);
        }
        if let Some(old) = old.filter(|old| self.service_users.get(*old).is_some_and(BTreeSet::is_empty)) {
            self.service_users.remove(old);
        }
        if let Some(new) = new {
            self.service_users.entry(new).or_default().insert(webhook.clone());
        }
    }

    fn service_changed(&mut self, name: &ObjectName) {
        self.dirty.webhooks.extend(self.service_users.get(name).into_iter().flatten().cloned());
        if Services::is_api_server(name) {
            // Where no delivery may go is a part of what each AuthServer gives to its Webhooks.
            self.dirty.servers.extend(self.servers.keys().cloned());
        }
    }
}
