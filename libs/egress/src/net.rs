//! A range of addresses: CIDR notation, or one address.
//!
//! Values only. IPv4 and IPv6 never match each other; callers extract embedded IPv4 first.

use std::{fmt, net::IpAddr, str::FromStr};

/// A range of addresses, such as `10.1.0.0/16`, `fd00::/8` or the single `192.0.2.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    base: IpAddr,
    prefix: u8,
}

impl Net {
    /// Whether the range holds the address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                same_start(u128::from(u32::from(base)) << 96, u128::from(u32::from(ip)) << 96, self.prefix)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => same_start(base.into(), ip.into(), self.prefix),
            _ => false,
        }
    }
}

/// Whether the first `bits` bits are equal.
fn same_start(a: u128, b: u128, bits: u8) -> bool {
    let differing = a ^ b;
    bits == 0 || differing >> (128 - u32::from(bits)) == 0
}

impl FromStr for Net {
    /// A half-sentence that follows the entry.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| "is neither an address nor a range such as 10.1.0.0/16")?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) => {
                digits.parse().ok().filter(|p| *p <= bits).ok_or("has a prefix length that is out of range")?
            }
        };
        if matches!(base, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err("is an IPv4 address written as IPv6; write it as IPv4");
        }
        let net = Self { base, prefix };
        if net.first() != base {
            return Err("has bits set after its prefix; write the first address of the range");
        }
        Ok(net)
    }
}

impl Net {
    fn first(&self) -> IpAddr {
        match self.base {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_it_names_and_nothing_else() {
        let cases = [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "1.2.3.4", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::1", "::1", true),
            ("128.0.0.0/1", "127.255.255.255", false),
        ];
        for (net, ip, expected) in cases {
            assert_eq!(net.parse::<Net>().unwrap().contains(ip.parse().unwrap()), expected, "{net} {ip}");
        }
    }

    #[test]
    fn what_is_no_range_says_why() {
        for bad in
            ["10.1.0.1/16", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "fe80::1/64", "::ffff:10.0.0.0/104", "x/8", ""]
        {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }
}
