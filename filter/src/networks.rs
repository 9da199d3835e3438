//! Networks of clients, in the one form in which they are compared.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Returns the network that a text names, `192.0.2.0/24` or a single address; none if it names none.
///
/// Bits behind the prefix are cleared. A network of IPv4 addresses that is written as one of IPv6
/// (`::ffff:192.0.2.0/120`; RFC 4291, section 2.5.5.2) is the one of IPv4: addresses of clients are
/// compared in that form, too.
#[must_use]
pub fn parse(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(address).map(canonical)
}

fn canonical(network: IpNet) -> IpNet {
    let mapped = match network.addr() {
        IpAddr::V6(address) => Ipv6Addr::to_ipv4_mapped(&address),
        IpAddr::V4(_) => None,
    };
    let as_ipv4 = mapped.and_then(|address| {
        let length = network.prefix_len().checked_sub(MAPPED_BITS)?;
        Ipv4Net::new(address, length).ok()
    });
    as_ipv4.map_or(network, IpNet::V4).trunc()
}

/// What is before the IPv4 address in an IPv6 address that stands for one.
const MAPPED_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_has_one_form() {
        for (text, network) in [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("192.0.2.7/24", Some("192.0.2.0/24")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
            ("::ffff:192.0.2.0/120", Some("192.0.2.0/24")),
            ("::ffff:c000:207/128", Some("192.0.2.7/32")),
            ("::FFFF:10.1.2.3/104", Some("10.0.0.0/8")),
            ("::ffff:0.0.0.0/96", Some("0.0.0.0/0")),
            ("::ffff:192.0.2.0/95", Some("::fffe:0:0/95")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::1", Some("::1/128")),
            ("::/0", Some("::/0")),
            ("::ffff:192.0.2.0/129", None),
            ("192.0.2.0/33", None),
            ("nonsense", None),
            ("", None),
        ] {
            let parsed = parse(text).map(|network| network.to_string());
            assert_eq!(parsed.as_deref(), network, "{text}");
        }
    }
}
