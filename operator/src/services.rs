//! What a Service stands for: the addresses behind it, and whether the control plane alone decides on them.
//!
//! In: Services and `EndpointSlices`, of which no more is kept than is needed. Out: the addresses that may be
//! dialled for a Service, or why none may.
//!
//! kube-proxy forwards a Service's address to whatever its `EndpointSlices` hold, and who may write those may
//! name any address at all. So a Service must select Pods, and each of its slices must be the control plane's:
//! what somebody else writes into such a slice the control plane takes out again. A Service without a selector
//! and one of type `ExternalName` name addresses of their writer's choice, and are refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use tidings_plan::ObjectName;

use crate::{Finding, Reason};

/// The label by which a slice names its Service, and the one by which it names who keeps it.
const OF_SERVICE: &str = "kubernetes.io/service-name";
const FIELD: &str = "spec.endpoint.serviceRef";

/// The Service that stands for the API server.
fn api_server() -> ObjectName {
    ObjectName::new("default", "kubernetes")
}

/// Services and their slices, by name.
#[derive(Debug, Clone, Default)]
pub struct Services {
    services: BTreeMap<ObjectName, Service>,
    /// By Service, then by the slice's name.
    slices: BTreeMap<ObjectName, BTreeMap<String, Slice>>,
    /// The Service of a slice.
    of: BTreeMap<ObjectName, ObjectName>,
    /// Whether these are all; else one that is absent may be there all the same, as beside manifests.
    are_all: bool,
}

/// What is kept of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    address: Address,
    selects: bool,
    /// The ports that take TCP.
    ports: Vec<i32>,
}

/// How a Service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// Under another name.
    External,
    /// At its Pods.
    Headless,
    /// At addresses of its own; none in a manifest.
    Own(Vec<IpAddr>),
}

/// What is kept of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    service: String,
    /// Who keeps it.
    pub keeper: Keeper,
    /// The addresses that are ready.
    addresses: Vec<IpAddr>,
}

/// Who keeps a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The control plane, from a Service's selector.
    ControlPlane,
    /// Somebody else.
    Somebody,
}

// === impl Services ===

impl Services {
    /// The Services of a cluster, of which each one is told.
    pub fn of_a_cluster() -> Self {
        Self { are_all: true, ..Self::default() }
    }

    /// Takes a Service; whether it differs from what was known.
    pub fn put(&mut self, name: &ObjectName, service: Service) -> bool {
        let is_another = self.services.get(name) != Some(&service);
        self.services.insert(name.clone(), service);
        is_another
    }

    /// A Service is gone; whether it was known.
    pub fn remove(&mut self, name: &ObjectName) -> bool {
        self.services.remove(name).is_some()
    }

    /// Takes a slice; the Services of which something changed with it.
    pub fn put_slice(&mut self, name: &ObjectName, slice: Slice) -> Vec<ObjectName> {
        let service = ObjectName::new(&name.namespace, &slice.service);
        let mut changed = match self.of.get(name) {
            Some(before) if *before != service => self.remove_slice(name),
            _ => Vec::new(),
        };
        self.of.insert(name.clone(), service.clone());
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&name.name) != Some(&slice) {
            slices.insert(name.name.clone(), slice);
            changed.push(service);
        }
        changed
    }

    /// A slice is gone; the Service that it was of.
    pub fn remove_slice(&mut self, name: &ObjectName) -> Vec<ObjectName> {
        let Some(service) = self.of.remove(name) else { return Vec::new() };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&name.name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        vec![service]
    }

    /// The Services' names.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// The names of the slices that this one keeps.
    pub fn slices(&self, keeper: Keeper) -> impl Iterator<Item = &ObjectName> {
        self.of.iter().filter(move |(name, _)| self.keeper(name) == Some(keeper)).map(|(name, _)| name)
    }

    /// Who keeps a slice.
    pub fn keeper(&self, name: &ObjectName) -> Option<Keeper> {
        self.slices.get(self.of.get(name)?)?.get(&name.name).map(|slice| slice.keeper)
    }

    /// Whether a Service is the API server's.
    pub fn is_api_server(name: &ObjectName) -> bool {
        *name == api_server()
    }

    /// The addresses of the API server, as far as they may be seen.
    pub fn control_plane(&self) -> Vec<IpAddr> {
        let own = self.services.get(&api_server()).map(|service| match &service.address {
            Address::Own(addresses) => addresses.clone(),
            Address::External | Address::Headless => Vec::new(),
        });
        own.into_iter().flatten().chain(self.behind(&api_server())).collect()
    }

    /// The addresses that may be dialled for a Service's port; `None` where no cluster tells.
    pub fn resolve(&self, name: &ObjectName, port: i32) -> Result<Option<Vec<IpAddr>>, Finding> {
        let Some(service) = self.services.get(name) else { return self.absent(name) };
        let not_allowed = |message: String| Finding::new(Reason::ServiceNotAllowed, FIELD, message);
        if service.address == Address::External {
            return Err(not_allowed(format!(
                "Service {name} is of type ExternalName, which names a host outside of the namespace: write that host in spec.endpoint.url"
            )));
        }
        if !service.selects {
            return Err(not_allowed(format!(
                "Service {name} has no selector, so its addresses are whatever somebody wrote: give it a selector of this namespace's Pods, or write the address in spec.endpoint.url"
            )));
        }
        if let Some(slice) = self.foreign_slice(name) {
            return Err(not_allowed(format!(
                "EndpointSlice {slice} of Service {name} was not made by the control plane and can hold any address: delete it, or take the label {OF_SERVICE} off it"
            )));
        }
        let Address::Own(addresses) = &service.address else {
            return Ok(self.are_all.then(|| self.behind(name)));
        };
        if !service.ports.contains(&port) {
            let ports: Vec<_> = service.ports.iter().map(i32::to_string).collect();
            let message = format!("Service {name} has no TCP port {port}: it has {}", ports.join(", "));
            return Err(Finding::new(Reason::ServicePortNotFound, format!("{FIELD}.port"), message));
        }
        Ok(self.are_all.then(|| addresses.clone()))
    }

    fn absent(&self, name: &ObjectName) -> Result<Option<Vec<IpAddr>>, Finding> {
        if !self.are_all {
            return Ok(None);
        }
        let message = format!("there is no Service {name}: create it, or name another one");
        Err(Finding::new(Reason::ServiceNotFound, format!("{FIELD}.name"), message))
    }

    fn foreign_slice(&self, service: &ObjectName) -> Option<&str> {
        let mut slices = self.slices.get(service)?.iter();
        slices.find(|(_, slice)| slice.keeper == Keeper::Somebody).map(|(name, _)| name.as_str())
    }

    /// What a Service's slices hold, sorted.
    fn behind(&self, service: &ObjectName) -> Vec<IpAddr> {
        let slices = self.slices.get(service).into_iter().flat_map(BTreeMap::values);
        let mut addresses: Vec<_> = slices.flat_map(|slice| slice.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

// === impl Service ===

impl From<&core::Service> for Service {
    fn from(service: &core::Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let written = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let address = if spec.type_.as_deref() == Some("ExternalName") {
            Address::External
        } else if written.iter().any(|address| address == "None") {
            Address::Headless
        } else {
            Address::Own(written.iter().filter_map(|address| address.parse().ok()).collect())
        };
        let takes_tcp =
            |port: &core::ServicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let ports = spec.ports.unwrap_or_default();
        Self {
            address,
            selects: spec.selector.is_some_and(|selector| !selector.is_empty()),
            ports: ports.iter().filter(|port| takes_tcp(port)).map(|port| port.port).collect(),
        }
    }
}

// === impl Slice ===

impl Slice {
    /// What is kept of a slice.
    pub fn new(slice: &discovery::EndpointSlice, keeper: Keeper) -> Self {
        let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get(OF_SERVICE));
        let is_ready = |endpoint: &&discovery::Endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let ready =
            slice.endpoints.iter().flatten().filter(is_ready).flat_map(|endpoint| &endpoint.addresses);
        Self {
            service: label.cloned().unwrap_or_default(),
            keeper,
            addresses: ready.filter_map(|address| address.parse().ok()).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
