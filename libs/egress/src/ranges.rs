//! What kind of address an address is, after IPv4 hidden inside IPv6 was brought out.
//!
//! Values only, from the IANA special-purpose registries. An address that is not known to be public is not: in IPv6
//! only 2000::/3 is, less its own special ranges.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address of the internet: none of the ranges below.
    Public,
    /// The machine itself: 127.0.0.0/8 and `::1`.
    Loopback,
    /// RFC 1918, and fc00::/7.
    Private,
    /// 100.64.0.0/10, the inner side of a carrier's NAT.
    SharedNat,
    /// Addresses that are valid on one link only: 169.254.0.0/16, where clouds serve credentials, and fe80::/10.
    LinkLocal,
    /// A cloud's metadata or host service.
    Metadata,
    /// Multicast and broadcast.
    Multicast,
    /// No address: 0.0.0.0/8, of which some systems take 0.0.0.0 for themselves, and `::`.
    Unspecified,
    /// Documentation, benchmarks, protocols, what is kept back for later.
    Reserved,
}

impl Kind {
    /// Whether naming a host opens it: ordinary places inside, never metadata or stranger ones.
    pub(crate) const fn opened_by_host_name(self) -> bool {
        matches!(self, Self::Public | Self::Loopback | Self::Private | Self::SharedNat)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedNat => "carrier-grade NAT",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
        })
    }
}

/// Metadata and host services that lie in other ranges: AWS, GCP and Azure; Azure's host; Alibaba; Oracle.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// AWS' metadata over IPv6, and Google's.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The address that a packet would reach: mapped, compatible, NAT64 and 6to4 forms carry IPv4.
pub(crate) fn effective(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let embedded = match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some((high, low)),
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some((high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((high, low)),
        [0x2002, high, low, ..] => Some((high, low)),
        // ::a.b.c.d, but not :: and ::1
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some((high, low)),
        _ => None,
    };
    match embedded {
        Some((high, low)) => IpAddr::V4(((u32::from(high) << 16) | u32::from(low)).into()),
        None => ip,
    }
}

/// What kind of address this is; embedded IPv4 is judged as IPv4.
pub fn kind_of(ip: IpAddr) -> Kind {
    match effective(ip) {
        IpAddr::V4(v4) => kind_of_v4(v4),
        IpAddr::V6(v6) => kind_of_v6(v6),
    }
}

fn kind_of_v4(ip: Ipv4Addr) -> Kind {
    if METADATA_V4.contains(&ip) {
        return Kind::Metadata;
    }
    match ip.octets() {
        [0, ..] => Kind::Unspecified,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Kind::Private,
        [127, ..] => Kind::Loopback,
        [100, 64..=127, ..] => Kind::SharedNat,
        [169, 254, ..] => Kind::LinkLocal,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Kind::Reserved
        }
        [224..=239, ..] | [255, 255, 255, 255] => Kind::Multicast,
        [240..=255, ..] => Kind::Reserved,
        _ => Kind::Public,
    }
}

fn kind_of_v6(ip: Ipv6Addr) -> Kind {
    if METADATA_V6.contains(&ip) {
        return Kind::Metadata;
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        [0xfc00..=0xfdff, ..] => Kind::Private,
        // site-local (fec0::/10) was the private range once
        [0xfec0..=0xfeff, ..] => Kind::Private,
        [0xfe80..=0xfebf, ..] => Kind::LinkLocal,
        [0xff00..=0xffff, ..] => Kind::Multicast,
        // Teredo, benchmarks, ORCHID and other protocol assignments; documentation twice
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Kind::Reserved,
        [0x2000..=0x3fff, ..] => Kind::Public,
        _ => Kind::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_is_known_at_both_its_ends() {
        use Kind::*;
        #[rustfmt::skip] // a table
        let cases = [
            ("0.0.0.0", Unspecified), ("0.255.255.255", Unspecified), ("1.0.0.0", Public),
            ("9.255.255.255", Public), ("10.0.0.0", Private), ("10.255.255.255", Private), ("11.0.0.0", Public),
            ("100.63.255.255", Public), ("100.64.0.0", SharedNat), ("100.127.255.255", SharedNat), ("100.128.0.0", Public),
            ("100.100.100.200", Metadata), ("126.255.255.255", Public), ("127.0.0.1", Loopback), ("127.255.255.255", Loopback),
            ("128.0.0.0", Public), ("168.63.129.16", Metadata), ("169.253.255.255", Public), ("169.254.0.0", LinkLocal),
            ("169.254.169.254", Metadata), ("169.254.255.255", LinkLocal), ("172.15.255.255", Public), ("172.16.0.0", Private),
            ("172.31.255.255", Private), ("172.32.0.0", Public), ("192.0.0.0", Reserved), ("192.0.0.192", Metadata),
            ("192.0.2.1", Reserved), ("192.88.99.1", Reserved), ("192.168.0.1", Private), ("192.169.0.0", Public),
            ("198.18.0.0", Reserved), ("198.19.255.255", Reserved), ("198.20.0.0", Public), ("198.51.100.1", Reserved),
            ("203.0.113.9", Reserved), ("223.255.255.255", Public), ("224.0.0.1", Multicast), ("239.255.255.255", Multicast),
            ("240.0.0.0", Reserved), ("255.255.255.255", Multicast),
            ("::", Unspecified), ("::1", Loopback), ("fc00::", Private), ("fdff:ffff::1", Private), ("fd00:ec2::254", Metadata),
            ("fe80::1", LinkLocal), ("febf::1", LinkLocal), ("fec0::1", Private), ("ff02::1", Multicast),
            ("2001::1", Reserved), ("2001:1ff::", Reserved), ("2001:200::1", Public), ("2001:db8::1", Reserved),
            ("2606:4700::1111", Public), ("3fff:fff::", Reserved), ("100::1", Reserved), ("4000::1", Reserved), ("5f00::1", Reserved),
            ("64:ff9b:1::a00:1", Reserved),
        ];
        for (ip, expected) in cases {
            assert_eq!(kind_of(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn ipv4_inside_ipv6_is_judged_as_ipv4() {
        for (ip, expected) in [
            ("::ffff:127.0.0.1", Kind::Loopback),
            ("::ffff:169.254.169.254", Kind::Metadata),
            ("::ffff:8.8.8.8", Kind::Public),
            ("::ffff:0:10.0.0.1", Kind::Private),
            ("::127.0.0.1", Kind::Loopback),
            ("64:ff9b::a00:1", Kind::Private),
            ("64:ff9b::a9fe:a9fe", Kind::Metadata),
            ("64:ff9b::808:808", Kind::Public),
            ("2002:7f00:1::", Kind::Loopback),
            ("2002:a00:1::5", Kind::Private),
        ] {
            assert_eq!(kind_of(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
