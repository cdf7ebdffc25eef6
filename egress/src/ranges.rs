//! The address ranges that are not the public internet, by name and source.
//!
//! In: one address, already free of its IPv4-in-IPv6 wrapping where that wrapping is a mere spelling.
//! Out: the range it falls in. The tables are the IANA special-purpose registries for IPv4 and IPv6,
//! the multicast blocks, what IPv6 has not given out (all but `2000::/3`), and the addresses at
//! which clouds keep credentials. They hold also those few entries that the registries call
//! globally reachable (anycast relays, AS112): no receiver of webhooks lives there.
//!
//! It must never decide: [`crate::Egress`] does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::embedded;

/// What a range is to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Where a cluster's Services may have their addresses.
    Private,
    /// A cloud's metadata or credentials.
    Metadata,
    /// Anything else that is not the public internet.
    Special,
}

/// A range's name and source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// What it is to a delivery.
    pub(crate) kind: Kind,
    /// The registry's name for it.
    pub(crate) name: &'static str,
    /// The document that sets it apart.
    pub(crate) source: &'static str,
}

/// The range that an address falls in; `None`: the public internet.
pub(crate) fn range_of(address: IpAddr) -> Option<Range> {
    match address {
        IpAddr::V4(v4) => V4.iter().find(|(net, _)| net.contains(&v4)).map(|(_, range)| *range),
        IpAddr::V6(v6) => {
            let listed = V6.iter().find(|(net, _)| net.contains(&v6)).map(|(_, range)| *range);
            listed
                .or_else(|| embedded::is_isatap(v6).then_some(ISATAP))
                .or_else(|| (!GLOBAL.contains(&v6)).then_some(UNALLOCATED))
        }
    }
}

const ISATAP: Range = special("ISATAP", "RFC 5214");
const UNALLOCATED: Range = special("IPv6 outside of global unicast", "RFC 4291");
const GLOBAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

const fn special(name: &'static str, source: &'static str) -> Range {
    Range { kind: Kind::Special, name, source }
}

const fn private(name: &'static str, source: &'static str) -> Range {
    Range { kind: Kind::Private, name, source }
}

const fn metadata(name: &'static str) -> Range {
    Range { kind: Kind::Metadata, name, source: "the cloud's documents" }
}

const fn v4(octets: [u8; 4], prefix: u8, range: Range) -> (Ipv4Net, Range) {
    let [a, b, c, d] = octets;
    (Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix), range)
}

const fn v6(head: [u16; 4], prefix: u8, range: Range) -> (Ipv6Net, Range) {
    v6_tail(head, [0; 4], prefix, range)
}

const fn v6_tail(head: [u16; 4], tail: [u16; 4], prefix: u8, range: Range) -> (Ipv6Net, Range) {
    let address = Ipv6Addr::new(head[0], head[1], head[2], head[3], tail[0], tail[1], tail[2], tail[3]);
    (Ipv6Net::new_assert(address, prefix), range)
}

/// The narrower range stands before the wider one.
const V4: &[(Ipv4Net, Range)] = &[
    v4([169, 254, 169, 254], 32, metadata("cloud instance metadata")),
    v4([169, 254, 170, 2], 32, metadata("AWS ECS task credentials")),
    v4([169, 254, 170, 23], 32, metadata("AWS EKS pod identity")),
    v4([100, 100, 100, 200], 32, metadata("Alibaba Cloud instance metadata")),
    v4([192, 0, 0, 192], 32, metadata("Oracle Cloud instance metadata")),
    v4([168, 63, 129, 16], 32, metadata("Azure wire server")),
    v4([0, 0, 0, 0], 32, special("unspecified", "RFC 1122")),
    v4([0, 0, 0, 0], 8, special("this network", "RFC 791")),
    v4([10, 0, 0, 0], 8, private("private use", "RFC 1918")),
    v4([100, 64, 0, 0], 10, private("shared address space", "RFC 6598")),
    v4([127, 0, 0, 0], 8, special("loopback", "RFC 1122")),
    v4([169, 254, 0, 0], 16, special("link-local", "RFC 3927")),
    v4([172, 16, 0, 0], 12, private("private use", "RFC 1918")),
    v4([192, 0, 0, 0], 29, special("IPv4 service continuity", "RFC 7335")),
    v4([192, 0, 0, 8], 32, special("IPv4 dummy", "RFC 7600")),
    v4([192, 0, 0, 9], 32, special("port control protocol anycast", "RFC 7723")),
    v4([192, 0, 0, 10], 32, special("TURN anycast", "RFC 8155")),
    v4([192, 0, 0, 170], 31, special("NAT64/DNS64 discovery", "RFC 8880")),
    v4([192, 0, 0, 0], 24, special("IETF protocol assignments", "RFC 6890")),
    v4([192, 0, 2, 0], 24, special("documentation", "RFC 5737")),
    v4([192, 31, 196, 0], 24, special("AS112", "RFC 7535")),
    v4([192, 52, 193, 0], 24, special("AMT", "RFC 7450")),
    v4([192, 88, 99, 0], 24, special("6to4 relay anycast", "RFC 7526")),
    v4([192, 168, 0, 0], 16, private("private use", "RFC 1918")),
    v4([192, 175, 48, 0], 24, special("direct delegation AS112", "RFC 7534")),
    v4([198, 18, 0, 0], 15, special("benchmarking", "RFC 2544")),
    v4([198, 51, 100, 0], 24, special("documentation", "RFC 5737")),
    v4([203, 0, 113, 0], 24, special("documentation", "RFC 5737")),
    v4([224, 0, 0, 0], 4, special("multicast", "RFC 5771")),
    v4([255, 255, 255, 255], 32, special("limited broadcast", "RFC 919")),
    v4([240, 0, 0, 0], 4, special("reserved", "RFC 1112")),
];

/// The narrower range stands before the wider one.
const V6: &[(Ipv6Net, Range)] = &[
    v6_tail([0xfd00, 0xec2, 0, 0], [0, 0, 0, 0x254], 128, metadata("AWS instance metadata")),
    v6_tail([0xfd00, 0xec2, 0, 0], [0, 0, 0, 0x23], 128, metadata("AWS EKS pod identity")),
    v6_tail([0xfd20, 0xce, 0, 0], [0, 0, 0, 0x254], 128, metadata("Google Cloud instance metadata")),
    v6_tail([0; 4], [0, 0, 0, 1], 128, special("loopback", "RFC 4291")),
    v6([0; 4], 128, special("unspecified", "RFC 4291")),
    v6([0; 4], 96, special("IPv4-compatible", "RFC 4291")),
    v6_tail([0; 4], [0xffff, 0, 0, 0], 96, special("IPv4-translated", "RFC 2765")),
    v6([0x64, 0xff9b, 1, 0], 48, special("local-use IPv4/IPv6 translation", "RFC 8215")),
    v6([0x100, 0, 0, 0], 64, special("discard-only", "RFC 6666")),
    v6([0x100, 0, 0, 1], 64, special("dummy prefix", "RFC 9780")),
    v6([0x2001, 0, 0, 0], 32, special("Teredo", "RFC 4380")),
    v6_tail([0x2001, 1, 0, 0], [0, 0, 0, 1], 128, special("port control protocol anycast", "RFC 7723")),
    v6_tail([0x2001, 1, 0, 0], [0, 0, 0, 2], 128, special("TURN anycast", "RFC 8155")),
    v6_tail([0x2001, 1, 0, 0], [0, 0, 0, 3], 128, special("DNS-SD registration anycast", "RFC 9665")),
    v6([0x2001, 2, 0, 0], 48, special("benchmarking", "RFC 5180")),
    v6([0x2001, 3, 0, 0], 32, special("AMT", "RFC 7450")),
    v6([0x2001, 4, 0x112, 0], 48, special("AS112", "RFC 7535")),
    v6([0x2001, 0x10, 0, 0], 28, special("ORCHID", "RFC 4843")),
    v6([0x2001, 0x20, 0, 0], 28, special("ORCHIDv2", "RFC 7343")),
    v6([0x2001, 0x30, 0, 0], 28, special("drone remote id", "RFC 9374")),
    v6([0x2001, 0, 0, 0], 23, special("IETF protocol assignments", "RFC 2928")),
    v6([0x2001, 0xdb8, 0, 0], 32, special("documentation", "RFC 3849")),
    v6([0x2002, 0, 0, 0], 16, special("6to4", "RFC 3056")),
    v6([0x2620, 0x4f, 0x8000, 0], 48, special("direct delegation AS112", "RFC 7534")),
    v6([0x3fff, 0, 0, 0], 20, special("documentation", "RFC 9637")),
    v6([0x5f00, 0, 0, 0], 16, special("segment routing", "RFC 9602")),
    v6([0xfc00, 0, 0, 0], 7, private("unique local", "RFC 4193")),
    v6([0xfe80, 0, 0, 0], 10, special("link-local", "RFC 4291")),
    v6([0xfec0, 0, 0, 0], 10, special("site-local", "RFC 3879")),
    v6([0xff00, 0, 0, 0], 8, special("multicast", "RFC 4291")),
];
