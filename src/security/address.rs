//! Which addresses are part of the public internet (section 8, egress guard).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is a public unicast one: the only kind that a tenant's URL may lead to.
///
/// An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4) is as public as the one inside, since a gateway on
/// the way would deliver it there. Tunnels whose inside cannot be trusted (Teredo, compatible, local-use NAT64) are not.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// IANA's special-purpose registry for IPv4, without what is globally reachable.
const SPECIAL_V4: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),        // "this network"
    ([10, 0, 0, 0], 8),       // private
    ([100, 64, 0, 0], 10),    // carrier-grade NAT; also clouds' metadata (100.100.100.200)
    ([127, 0, 0, 0], 8),      // loopback
    ([168, 63, 129, 16], 32), // Azure's host: public by number, private by use
    ([169, 254, 0, 0], 16),   // link-local, metadata (169.254.169.254)
    ([172, 16, 0, 0], 12),    // private
    ([192, 0, 0, 0], 24),     // protocol assignments, metadata (192.0.0.192)
    ([192, 0, 2, 0], 24),     // documentation
    ([192, 31, 196, 0], 24),  // AS112
    ([192, 52, 193, 0], 24),  // AMT
    ([192, 88, 99, 0], 24),   // 6to4 relay
    ([192, 168, 0, 0], 16),   // private
    ([192, 175, 48, 0], 24),  // AS112
    ([198, 18, 0, 0], 15),    // benchmarking
    ([198, 51, 100, 0], 24),  // documentation
    ([203, 0, 113, 0], 24),   // documentation
    ([224, 0, 0, 0], 4),      // multicast
    ([240, 0, 0, 0], 4),      // reserved, broadcast
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !SPECIAL_V4.iter().any(|(net, length)| {
        let mask = u32::MAX << (32 - length);
        bits & mask == u32::from_be_bytes(*net) & mask
    })
}

/// What is not public inside 2000::/3, the only block of IPv6 that is allocated for global unicast.
const SPECIAL_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = carried(address) {
        return is_public_v4(inner);
    }
    let within = |net: Ipv6Addr, length: u32| {
        let mask = u128::MAX << (128 - length);
        address.to_bits() & mask == net.to_bits() & mask
    };
    within(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)
        && !SPECIAL_V6.iter().any(|(net, length)| within(*net, *length))
}

/// The IPv4 address that a gateway would take from this one.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0xffff) => Some(join(g, h)), // IPv4-mapped, ::ffff:0:0/96
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => Some(join(g, h)), // NAT64, 64:ff9b::/96
        (0x2002, _) => Some(join(b, c)),                                 // 6to4, 2002::/16
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], public: bool) {
        for text in addresses {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(is_public(address), public, "{text}");
        }
    }

    #[test]
    fn public_addresses_are_public() {
        check(
            &["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255"],
            true,
        );
        check(&["172.32.0.0", "169.253.255.255", "192.167.1.1", "198.20.0.0", "223.255.255.255"], true);
        check(&["2606:4700:4700::1111", "2a00:1450:4001::200e", "2001:4860:4860::8888"], true);
    }

    #[test]
    fn special_ipv4_is_not() {
        check(&["0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "127.0.0.1", "127.255.255.254"], false);
        check(&["169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.168.0.1"], false);
        check(&["192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.7"], false);
        check(&["203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"], false);
    }

    #[test]
    fn carrier_grade_nat_is_not() {
        check(&["100.64.0.0", "100.100.100.200", "100.127.255.255"], false);
    }

    #[test]
    fn special_ipv6_is_not() {
        check(&["::", "::1", "::7f00:1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254"], false);
        check(&["ff02::1", "ff0e::1", "100::1", "2001::1", "2001:2::1", "2001:10::1", "2001:20::1"], false);
        check(&["2001:db8::1", "3fff::1", "5f00::1", "4000::1", "64:ff9b:1::a00:1"], false);
    }

    #[test]
    fn an_ipv4_address_inside_counts() {
        check(&["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:100.64.0.1"], false);
        check(&["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:1"], false);
        check(&["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1", "2002:c0a8:101::"], false);
        check(&["::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"], true);
    }
}
