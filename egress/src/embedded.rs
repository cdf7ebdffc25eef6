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

/// Every IPv4 address that an IPv6 one may carry, in whatever form: what a deny list has to see. The same
/// bits may be read in several ways; each reading counts.
pub(crate) fn carried(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return Vec::new().into_iter() };
    let segments = v6.segments();
    let [first, second, third, fourth, fifth, sixth, high, low] = segments;
    let mut found = Vec::new();
    // Mapped, translated, compatible; NAT64 of the well-known prefix and of the local one; ISATAP.
    let is_v4_in_v6 = segments[..4] == [0; 4] && matches!((fifth, sixth), (0 | 0xffff, 0 | 0xffff));
    if is_v4_in_v6 || (first, second) == (0x64, 0xff9b) || is_isatap(v6) {
        found.push(joined(high, low));
    }
    if first == 0x2002 {
        found.push(joined(second, third));
    }
    // Teredo: the server as it is, the client with its bits turned over.
    if (first, second) == (0x2001, 0) {
        found.extend([joined(third, fourth), joined(!high, !low)]);
    }
    found.into_iter()
}

/// RFC 5214: an interface identifier of `[02]00:5efe:a.b.c.d`.
pub(crate) fn is_isatap(address: Ipv6Addr) -> bool {
    let [.., high, low, _, _] = address.segments();
    high & !0x0200 == 0 && low == 0x5efe
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}
