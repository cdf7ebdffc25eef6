//! Addresses and URLs in every spelling that we know of, and what becomes of them under a plain policy.

mod special;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use special::is_special;
use tidings_egress::{Blocked, Egress};
use url::{Host, Url};

/// Not on the public internet, each written as a URL's host would be.
const REFUSED: &[&str] = &[
    // This network, private use, shared, loopback, link-local.
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.0",
    "10.0.0.1",
    "10.128.3.4",
    "10.255.255.255",
    "100.64.0.0",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.0.1.1",
    "127.127.127.127",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.255.255",
    "172.16.0.0",
    "172.16.0.1",
    "172.20.10.2",
    "172.31.255.255",
    "192.168.0.0",
    "192.168.0.1",
    "192.168.1.254",
    "192.168.255.255",
    // Protocol assignments, documentation, relays, benchmarking.
    "192.0.0.0",
    "192.0.0.1",
    "192.0.0.7",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.10",
    "192.0.0.170",
    "192.0.0.171",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.0",
    "192.0.2.1",
    "192.0.2.255",
    "198.51.100.0",
    "198.51.100.7",
    "198.51.100.255",
    "203.0.113.0",
    "203.0.113.9",
    "203.0.113.255",
    "192.31.196.0",
    "192.31.196.255",
    "192.52.193.0",
    "192.52.193.255",
    "192.88.99.0",
    "192.88.99.1",
    "192.175.48.0",
    "192.175.48.255",
    "198.18.0.0",
    "198.18.0.1",
    "198.19.255.255",
    "168.63.129.16",
    // Multicast, reserved, broadcast.
    "224.0.0.0",
    "224.0.0.1",
    "232.1.2.3",
    "239.255.255.255",
    "240.0.0.0",
    "250.1.1.1",
    "255.255.255.254",
    "255.255.255.255",
    // IPv4 as numbers, in hex and octal, shortened: the URL standard reads them all.
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.1",
    "0x7F.0x0.0x0.0x1",
    "0x7f.0.1",
    "0",
    "0x0",
    "10.1",
    "0x0a000001",
    "012.0.0.1",
    "167772161",
    "3232235521",
    "0xc0a80001",
    "192.168.257",
    "0300.0250.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "0xa9.0xfe.0xa9.0xfe",
    "127.0.0.1.",
    "１２７.０.０.１",
    "127。0。0。1",
    "①②⑦.0.0.1",
    // IPv6 of its own.
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[fc00::]",
    "[fc00::1]",
    "[fd00::1]",
    "[fd12:3456:789a::1]",
    "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "[fd20:ce::254]",
    "[fe80::]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[febf:ffff::1]",
    "[fec0::1]",
    "[feff::1]",
    "[ff00::]",
    "[ff01::1]",
    "[ff02::1]",
    "[ff02::fb]",
    "[ff0e::1]",
    "[ffff::1]",
    "[100::]",
    "[100::1]",
    "[100:0:0:1::]",
    "[2001:db8::]",
    "[2001:db8::1]",
    "[2001:db8:ffff::1]",
    "[3fff::1]",
    "[3fff:fff::1]",
    "[5f00::1]",
    "[2001:2::1]",
    "[2001:3::1]",
    "[2001:4:112::1]",
    "[2001:10::1]",
    "[2001:1f::1]",
    "[2001:20::1]",
    "[2001:2f::1]",
    "[2001:30::1]",
    "[2001:1::1]",
    "[2001:1::2]",
    "[2001:1::3]",
    "[2001:1ff::1]",
    "[2620:4f:8000::1]",
    "[1::1]",
    "[4000::1]",
    "[8000::1]",
    "[e000::1]",
    "[200::1]",
    "[1fff::1]",
    // IPv4 inside of IPv6: mapped, compatible, translated.
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::FFFF:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:192.168.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:0.0.0.0]",
    "[::ffff:100.64.0.1]",
    "[::ffff:172.16.0.1]",
    "[::ffff:224.0.0.1]",
    "[::ffff:255.255.255.255]",
    "[::ffff:168.63.129.16]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::10.0.0.1]",
    "[::93.184.216.34]",
    "[::ffff:0:127.0.0.1]",
    "[::ffff:0:7f00:1]",
    "[::ffff:0:10.0.0.1]",
    "[::ffff:0:93.184.216.34]",
    // NAT64, of the well-known prefix and the local ones.
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b::192.168.1.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b::0.0.0.0]",
    "[64:ff9b::100.64.0.1]",
    "[64:ff9b::224.0.0.1]",
    "[64:ff9b:1::1]",
    "[64:ff9b:1::127.0.0.1]",
    "[64:ff9b:1::93.184.216.34]",
    "[64:ff9b:1:ffff::1]",
    // 6to4, Teredo, ISATAP.
    "[2002::]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2002:a00:1::1]",
    "[2002:c0a8:1::1]",
    "[2002:a9fe:a9fe::1]",
    "[2002:5db8:d822::1]",
    "[2001::]",
    "[2001::1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[2001:0:7f00:1::]",
    "[2001:0:5db8:d822:0:0:80ff:fffe]",
    "[2001:0:0:0:0:0:f5ff:fffe]",
    "[2606:4700::5efe:7f00:1]",
    "[2606:4700::5efe:10.0.0.1]",
    "[2606:4700::200:5efe:a9fe:a9fe]",
    "[fe80::5efe:c0a8:1]",
    // Names that mean loopback whatever a resolver says.
    "localhost",
    "LOCALHOST",
    "localhost.",
    "LocalHost.",
    "foo.localhost",
    "a.b.localhost.",
    "x.y.localhost",
];

/// On the public internet, just beside what is not.
const ALLOWED: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.31.195.255",
    "192.31.197.0",
    "192.52.192.255",
    "192.52.194.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "192.175.47.255",
    "192.175.49.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "0x08080808",
    "134744072",
    "[2606:4700:4700::1111]",
    "[2001:4860:4860::8888]",
    "[2a00:1450:4001:81b::200e]",
    "[2620:fe::fe]",
    "[2001:200::1]",
    "[2001:db7:ffff::1]",
    "[2001:db9::1]",
    "[3ffe::1]",
    "[2003::1]",
    "[2620:4f:7fff::1]",
    "[2620:4f:8001::1]",
    "[64:ff9b::8.8.8.8]",
    "[64:ff9b::5db8:d822]",
    "[::ffff:8.8.8.8]",
    "[::ffff:5db8:d822]",
    "example.com",
    "hooks.example.com",
    "localhost.example.com",
    "notlocalhost",
    "local-host",
];

fn judge(host: &str) -> Result<(), Blocked> {
    let url = Url::parse(&format!("https://{host}/hook")).unwrap_or_else(|error| panic!("{host}: {error}"));
    Egress::default().judge_url(&url, false)
}

#[test]
fn the_table_holds_at_least_two_hundred_forms() {
    assert!(REFUSED.len() + ALLOWED.len() >= 200, "{} + {}", REFUSED.len(), ALLOWED.len());
    let mut all: Vec<_> = REFUSED.iter().chain(ALLOWED).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), REFUSED.len() + ALLOWED.len(), "none stands twice");
}

#[test]
fn every_spelling_of_an_address_that_is_not_public_is_refused() {
    let passed: Vec<_> = REFUSED.iter().filter(|host| judge(host).is_ok()).collect();
    assert_eq!(passed, Vec::<&&str>::new());
}

#[test]
fn what_lies_just_beside_is_allowed() {
    let refused: Vec<_> = ALLOWED.iter().filter_map(|host| Some((host, judge(host).err()?))).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn metadata_is_refused_even_to_a_service_of_the_own_namespace() {
    for address in [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "fd00:ec2::254",
        "127.0.0.1",
        "::1",
        "fe80::1",
        "224.0.0.1",
    ] {
        assert!(Egress::default().judge(address.parse().unwrap(), true).is_err(), "{address}");
    }
    for address in ["10.0.0.1", "172.16.0.1", "192.168.0.1", "fd00::1", "100.64.0.1"] {
        assert_eq!(Egress::default().judge(address.parse().unwrap(), true), Ok(()), "{address}");
    }
}

#[test]
fn what_a_private_address_carries_is_judged_as_well() {
    for address in ["fd00::5efe:7f00:1", "fd00::200:5efe:a9fe:a9fe", "fd00:1:2:3:0:5efe:e000:1"] {
        assert!(Egress::default().judge(address.parse().unwrap(), true).is_err(), "{address}");
    }
}

#[test]
fn a_deny_list_sees_every_reading_of_an_address() {
    let denies = |cidr: &str, address: &str| {
        let deny = vec![cidr.parse().unwrap()];
        let egress = Egress { allow: vec!["::/0".parse().unwrap()], deny, ..Egress::default() };
        egress.judge(address.parse().unwrap(), false).is_err()
    };
    // Teredo with a middle that reads as ISATAP: server, client, and the ISATAP address.
    for cidr in ["1.2.3.4/32", "9.9.9.9/32", "246.246.246.246/32"] {
        assert!(denies(cidr, "2001:0:102:304:0:5efe:f6f6:f6f6"), "{cidr}");
    }
    assert!(
        denies("1.2.3.4/32", "2002:102:304::5efe:909:909")
            && denies("9.9.9.9/32", "2002:102:304:0:0:5efe:909:909")
    );
    for cidr in ["::/0", "::ffff:0:0/95", "::ffff:0:0/96", "::ffff:1.2.3.0/120"] {
        assert!(denies(cidr, "::ffff:1.2.3.4") && denies(cidr, "1.2.3.4"), "{cidr}");
    }
}

#[test]
fn schemes_and_users_are_judged_before_the_host() {
    let judge =
        |url: &str| Egress::default().judge_url(&Url::parse(url).unwrap(), false).unwrap_err().reason();
    assert_eq!(judge("http://example.com/"), Blocked::Insecure.reason());
    for url in [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "ws://example.com/",
        "data:text/plain,x",
    ] {
        assert_eq!(judge(url), Blocked::UnsupportedScheme { scheme: String::new() }.reason(), "{url}");
    }
    for url in ["https://user@example.com/", "https://user:hush@example.com/", "https://:hush@example.com/"] {
        assert_eq!(judge(url), Blocked::UserInfo.reason(), "{url}");
    }
}

#[test]
fn no_message_holds_a_password_or_a_query() {
    let egress = Egress::default();
    for url in [
        "https://user:hush@127.0.0.1/?token=hush",
        "http://127.0.0.1/?token=hush",
        "https://10.0.0.1/?token=hush",
    ] {
        let error = egress.judge_url(&Url::parse(url).unwrap(), false).unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

fn any_v4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from)
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any_v4().prop_map(IpAddr::V4),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits)))
    ]
}

/// The spellings of an IPv4 address in IPv6 under which a network may reach it.
fn spellings(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
    let bits = u128::from(u32::from(v4));
    let teredo = (0x2001_0000_u128 << 96) | u128::from(!u32::from(v4));
    [
        bits,
        0xffff << 32 | bits,
        0xffff << 48 | bits,
        0x0064_ff9b << 96 | bits,
        0x2002 << 112 | bits << 80,
        teredo,
    ]
    .into_iter()
    .map(Ipv6Addr::from)
    .collect()
}

/// One part of an IPv4 address in a radix that the URL standard reads.
fn number(value: u32, radix: u8) -> String {
    match radix % 4 {
        0 => format!("0x{value:x}"),
        1 => format!("0{value:o}"),
        2 => format!("0X{value:X}"),
        _ => value.to_string(),
    }
}

/// An IPv4 address in 1 to 4 parts, the last of which takes what is left, each in its own radix.
fn written(v4: Ipv4Addr, parts: usize, radices: [u8; 4]) -> String {
    let octets = v4.octets();
    let heads = octets[..parts - 1].iter().zip(radices).map(|(octet, radix)| number((*octet).into(), radix));
    let rest = octets[parts - 1..].iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet));
    heads.chain([number(rest, radices[3])]).collect::<Vec<_>>().join(".")
}

/// The same host as percent-encoded bytes, in full-width digits, with ideographic dots, with the root's dot.
fn disguised(host: &str, how: u8) -> String {
    let wide = |c: char| match c {
        '0'..='9' => char::from_u32(u32::from('０') + u32::from(c) - u32::from('0')).unwrap_or(c),
        '.' => '。',
        other => other,
    };
    match how % 4 {
        0 => host.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat(),
        1 => host.chars().map(wide).collect(),
        2 => format!("{host}."),
        _ => host.to_owned(),
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(v4) => Some(v4.into()),
        Host::Ipv6(v6) => Some(v6.into()),
        Host::Domain(_) => None,
    }
}

proptest! {
    #[test]
    fn every_spelling_of_an_ipv4_address_is_judged_as_that_address(
        v4 in any_v4(), parts in 1usize..=4, radices in any::<[u8; 4]>(), how in any::<u8>(),
    ) {
        let host = disguised(&written(v4, parts, radices), how);
        let url = Url::parse(&format!("https://{host}/hook")).unwrap();
        prop_assert_eq!(literal(&url), Some(v4.into()), "{}", &host);
        let egress = Egress::default();
        prop_assert_eq!(egress.judge_url(&url, false), egress.judge(v4.into(), false), "{}", host);
    }

    #[test]
    fn every_spelling_of_an_ipv6_address_is_judged_as_that_address(bits in any::<u128>(), zeroes in any::<u8>()) {
        // Groups of zeroes make the short forms.
        let groups = (0..8).filter(|group| zeroes >> group & 1 == 0).fold(0, |mask, group| mask | 0xffff << (group * 16));
        let v6 = Ipv6Addr::from(bits & groups);
        let (full, tail) = (v6.segments().map(|group| format!("{group:04X}")), v6.octets());
        let head = full[..6].join(":");
        let mixed = format!("{head}:{}.{}.{}.{}", tail[12], tail[13], tail[14], tail[15]);
        let egress = Egress::default();
        for host in [v6.to_string(), full.join(":"), mixed] {
            let url = Url::parse(&format!("https://[{host}]/hook")).unwrap();
            prop_assert_eq!(literal(&url), Some(v6.into()), "{}", &host);
            prop_assert_eq!(egress.judge_url(&url, false), egress.judge(v6.into(), false), "{}", host);
        }
    }

    #[test]
    fn no_url_that_passes_names_a_special_address(host in "[0-9a-fxA-F.:%０-９。\\[\\]@/\\\\]{1,24}", path in "[ -~]{0,12}") {
        let judged = Url::parse(&format!("https://{host}/{path}")).ok();
        if let Some(url) = judged.filter(|url| Egress::default().judge_url(url, false).is_ok()) {
            prop_assert!(!literal(&url).is_some_and(is_special), "{}", url);
            prop_assert!(url.host_str().is_some_and(|host| host.parse::<Ipv4Addr>().is_err() || literal(&url).is_some()));
        }
    }

    #[test]
    fn a_special_address_passes_only_where_its_range_is_allowed(address in any_ip(), allow in any_v4(), prefix in 8u8..=32) {
        let cidr = ipnet::Ipv4Net::new(allow, prefix).unwrap();
        let egress = Egress { allow: vec![cidr.into()], ..Egress::default() };
        if is_special(address) && egress.judge(address, false).is_ok() {
            let IpAddr::V4(v4) = address.to_canonical() else { panic!("no IPv6 range is allowed, and {address} passed") };
            prop_assert!(cidr.contains(&v4), "{} is open by {}", address, cidr);
        }
    }

    #[test]
    fn a_denied_address_is_refused_whatever_is_allowed(address in any_ip()) {
        let all = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let egress = Egress { allow: all.clone(), deny: all, ..Egress::default() };
        prop_assert!(egress.judge(address, false).is_err());
        prop_assert!(egress.judge(address, true).is_err());
    }

    #[test]
    fn a_denied_ipv4_address_is_refused_in_every_ipv6_spelling(v4 in any_v4()) {
        let egress = Egress { allow: vec!["::/0".parse().unwrap()], deny: vec![format!("{v4}/32").parse().unwrap()], ..Egress::default() };
        for spelling in spellings(v4) {
            prop_assert!(egress.judge(spelling.into(), false).is_err(), "{}", spelling);
        }
    }

    #[test]
    fn an_ipv4_address_that_is_refused_is_refused_in_every_ipv6_spelling(v4 in any_v4()) {
        if Egress::default().judge(v4.into(), false).is_err() {
            for spelling in spellings(v4) {
                prop_assert!(Egress::default().judge(spelling.into(), false).is_err(), "{}", spelling);
            }
        }
    }

    #[test]
    fn an_allowed_cidr_opens_its_own_addresses_alone(inside in any::<u8>(), outside in any_v4()) {
        let egress = Egress { allow: vec!["10.7.7.0/24".parse().unwrap()], ..Egress::default() };
        prop_assert_eq!(egress.judge(Ipv4Addr::new(10, 7, 7, inside).into(), false), Ok(()));
        if outside.octets()[..3] != [10, 7, 7] {
            let closed = Egress::default().judge(outside.into(), false);
            prop_assert_eq!(egress.judge(outside.into(), false), closed);
        }
    }

    #[test]
    fn the_control_plane_is_refused_in_every_spelling(v4 in any_v4()) {
        let egress = Egress::default().with_control_plane(v4.into());
        prop_assert!(egress.judge(v4.into(), true).is_err());
        for spelling in spellings(v4) {
            prop_assert!(egress.judge(spelling.into(), true).is_err(), "{}", spelling);
        }
    }

    #[test]
    fn no_text_makes_the_policy_panic(text in "\\PC{0,40}") {
        if let Ok(url) = Url::parse(&format!("https://{text}/")) {
            let _ = Egress::default().judge_url(&url, false);
        }
        if let Ok(url) = Url::parse(&text) {
            let _ = Egress::default().judge_url(&url, true);
        }
    }
}
