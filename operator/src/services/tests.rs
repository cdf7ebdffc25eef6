use serde_json::{Value, json};

use super::*;

fn mailer() -> ObjectName {
    ObjectName::new("shop", "mailer")
}

/// A Service as the API server has it, with some fields of its spec replaced.
fn service(change: &Value) -> Service {
    let mut spec = json!({
        "type": "ClusterIP", "clusterIPs": ["10.96.0.7"], "selector": { "app": "mailer" },
        "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }],
    });
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let service: core::Service = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
    Service::from(&service)
}

fn slice(service: &str, keeper: Keeper, addresses: &[&str]) -> Slice {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
    let slice: discovery::EndpointSlice = serde_json::from_value(json!({
        "addressType": "IPv4", "endpoints": endpoints, "metadata": { "labels": { OF_SERVICE: service } },
    }))
    .unwrap();
    Slice::new(&slice, keeper)
}

fn with(service: Service) -> Services {
    let mut services = Services::of_a_cluster();
    services.put(&mailer(), service);
    services
}

fn reason(services: &Services, port: i32) -> Reason {
    services.resolve(&mailer(), port).unwrap_err().reason
}

fn addresses(services: &Services) -> Vec<String> {
    let resolved = services.resolve(&mailer(), 80).unwrap().unwrap();
    resolved.iter().map(IpAddr::to_string).collect()
}

#[test]
fn a_service_that_selects_pods_is_dialled_at_its_own_addresses_and_its_own_ports() {
    let services = with(service(&json!({ "clusterIPs": ["10.96.0.7", "fd00::7"] })));
    assert_eq!(addresses(&services), ["10.96.0.7", "fd00::7"]);
    assert_eq!(reason(&services, 81), Reason::ServicePortNotFound);
    assert_eq!(reason(&services, 53), Reason::ServicePortNotFound, "a port for UDP takes no request");
}

#[test]
fn a_service_that_names_addresses_of_somebodys_choice_is_refused() {
    let external = json!({ "type": "ExternalName", "externalName": "mailer.auth.svc", "clusterIPs": null });
    for change in [external, json!({ "selector": null }), json!({ "selector": {} })] {
        assert_eq!(reason(&with(service(&change)), 80), Reason::ServiceNotAllowed, "{change}");
    }
    assert_eq!(reason(&Services::of_a_cluster(), 80), Reason::ServiceNotFound);
}

#[test]
fn one_slice_of_somebody_elses_closes_the_service_until_it_is_gone() {
    for change in [json!({}), json!({ "clusterIPs": ["None"] })] {
        let mut services = with(service(&change));
        let mine = ObjectName::new("shop", "mine");
        assert_eq!(services.put_slice(&mine, slice("mailer", Keeper::Somebody, &["10.0.0.1"])), [mailer()]);
        assert_eq!(reason(&services, 80), Reason::ServiceNotAllowed);
        // Moved to another Service, and back, and deleted.
        let other = ObjectName::new("shop", "other");
        let moved = services.put_slice(&mine, slice("other", Keeper::Somebody, &["10.0.0.1"]));
        assert_eq!(moved, [mailer(), other.clone()]);
        assert!(services.resolve(&mailer(), 80).is_ok());
        services.put_slice(&mine, slice("mailer", Keeper::Somebody, &[]));
        assert_eq!(reason(&services, 80), Reason::ServiceNotAllowed);
        assert_eq!(services.remove_slice(&mine), [mailer()]);
        assert!(services.resolve(&mailer(), 80).is_ok());
        assert!(services.slices.is_empty() && services.of.is_empty());
    }
}

#[test]
fn a_headless_service_is_dialled_at_its_ready_pods_and_nowhere_while_there_is_none() {
    let mut services = with(service(&json!({ "clusterIPs": ["None"] })));
    assert_eq!(addresses(&services), Vec::<String>::new());
    let (one, two) = (ObjectName::new("shop", "mailer-1"), ObjectName::new("shop", "mailer-2"));
    services.put_slice(&one, slice("mailer", Keeper::ControlPlane, &["10.1.0.9", "10.1.0.2"]));
    services.put_slice(&two, slice("mailer", Keeper::ControlPlane, &["10.1.0.2"]));
    assert_eq!(addresses(&services), ["10.1.0.2", "10.1.0.9"]);
    let elsewhere = ObjectName::new("auth", "mailer-3");
    services.put_slice(&elsewhere, slice("mailer", Keeper::ControlPlane, &["10.1.0.3"]));
    assert_eq!(addresses(&services), ["10.1.0.2", "10.1.0.9"], "a slice of another namespace is another's");
}

#[test]
fn without_a_cluster_a_manifest_is_validated_and_no_address_is_known() {
    let mut services = Services::default();
    assert_eq!(services.resolve(&mailer(), 80), Ok(None));
    services.put(&mailer(), service(&json!({ "clusterIPs": null })));
    assert_eq!(services.resolve(&mailer(), 80), Ok(None));
    assert_eq!(reason(&services, 81), Reason::ServicePortNotFound);
    services.put(&mailer(), service(&json!({ "type": "ExternalName" })));
    assert_eq!(reason(&services, 80), Reason::ServiceNotAllowed);
}

#[test]
fn the_api_servers_addresses_are_its_services_and_those_behind_it() {
    let mut services = Services::of_a_cluster();
    services.put(&api_server(), service(&json!({ "clusterIPs": ["10.96.0.1"], "selector": null })));
    let slice = slice("kubernetes", Keeper::Somebody, &["192.0.2.1"]);
    services.put_slice(&ObjectName::new("default", "kubernetes"), slice);
    let addresses: Vec<_> = services.control_plane().iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, ["10.96.0.1", "192.0.2.1"]);
}
