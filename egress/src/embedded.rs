//! IPv4 addresses inside of IPv6 ones.
//!
//! In: an address. Out: the address that is really meant, and every IPv4 address that it carries.
//! It must never call two addresses one that a host would dial differently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Takes off the IPv4-mapped spelling (`::ffff:a.b.c.d`, RFC 4291): a host dials it as IPv4.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The IPv4 address that a NAT64 gateway dials for `64:ff9b::a.b.c.d` (RFC 6052).
pub(crate) fn behind_nat64(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments() else { return None };
    Some(joined(high, low))
}

/// Every IPv4 address that an IPv6 one may carry, in whatever form: what a deny list has to see.
pub(crate) fn carried(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let found = match address {
        IpAddr::V4(_) => [None, None],
        IpAddr::V6(v6) => carried_by(v6),
    };
    found.into_iter().flatten()
}

fn carried_by(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    match address.segments() {
        // Mapped, translated, compatible; NAT64 of the well-known prefix and of the local one.
        [0, 0, 0, 0, 0 | 0xffff, 0 | 0xffff, high, low] | [0x64, 0xff9b, _, _, _, _, high, low] => {
            [Some(joined(high, low)), None]
        }
        [0x2002, high, low, ..] => [Some(joined(high, low)), None],
        // Teredo: the server as it is, the client with its bits turned over.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            [Some(joined(high, low)), Some(joined(!client_high, !client_low))]
        }
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => [Some(joined(high, low)), None],
        _ => [None, None],
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}
