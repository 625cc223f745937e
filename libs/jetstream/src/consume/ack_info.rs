//! What the reply subject of a delivery says about it. Pure text in, values out.

/// Facts about one delivery, as the server wrote them into its ack subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckInfo {
    /// The JetStream domain, where the server names one.
    pub domain: Option<String>,
    /// The name of the stream that holds the message.
    pub stream: String,
    /// The name of the consumer that delivered it.
    pub consumer: String,
    /// How often this message was delivered, this time included: 1 for the first.
    pub delivered: u64,
    /// The message's sequence in the stream.
    pub stream_seq: u64,
    /// The delivery's sequence in the consumer.
    pub consumer_seq: u64,
    /// When the stream stored the message, in nanoseconds since 1970.
    pub stored_at_ns: i128,
    /// Messages that waited behind this one for the consumer.
    pub pending: u64,
}

impl AckInfo {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>` and
    /// the longer form `$JS.ACK.<domain>.<account hash>.<stream>.….<pending>[.<more>]`, in which `_`
    /// stands for no domain. `None` for anything else.
    pub fn parse(reply: &str) -> Option<Self> {
        /// Tokens after `$JS.ACK.` of the old form, and the least of the new.
        const OLD: usize = 7;
        const NEW: usize = 9;
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let (domain, t) = match tokens.len() {
            OLD => (None, &tokens[..]),
            n if n >= NEW => (Some(tokens[0]).filter(|d| *d != "_"), &tokens[2..]),
            _ => return None,
        };
        if t[0].is_empty() || t[1].is_empty() {
            return None;
        }
        Some(Self {
            domain: domain.map(str::to_owned),
            stream: t[0].to_owned(),
            consumer: t[1].to_owned(),
            delivered: t[2].parse().ok()?,
            stream_seq: t[3].parse().ok()?,
            consumer_seq: t[4].parse().ok()?,
            stored_at_ns: t[5].parse().ok()?,
            pending: t[6].parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_others_refused() {
        let info = |domain: Option<&str>| AckInfo {
            domain: domain.map(Into::into),
            stream: "swarm_jobs".into(),
            consumer: "worker-dev_gpu".into(),
            delivered: 2,
            stream_seq: 71,
            consumer_seq: 90,
            stored_at_ns: 1_732_180_000_123_456_789,
            pending: 5,
        };
        let tail = "swarm_jobs.worker-dev_gpu.2.71.90.1732180000123456789.5";
        let cases = [
            (format!("$JS.ACK.{tail}"), Some(info(None))),
            (format!("$JS.ACK._.ACCHASH.{tail}"), Some(info(None))),
            (format!("$JS.ACK.hub.ACCHASH.{tail}"), Some(info(Some("hub")))),
            (format!("$JS.ACK.hub.ACCHASH.{tail}.RAND"), Some(info(Some("hub")))),
            (format!("$JS.ACK.hub.ACCHASH.{tail}.RAND.more"), Some(info(Some("hub")))),
            (format!("$JS.ACK.hub.{tail}"), None),
            ("$JS.ACK.s.c.x.1.1.1.1".into(), None),
            ("$JS.ACK.s.c.-1.1.1.1.1".into(), None),
            ("$JS.ACK...1.1.1.1.1".into(), None),
            ("$JS.ACK.s.c.1.1.1.1".into(), None),
            ("$JS.ACK".into(), None),
            ("$JS.FC.s.c.1.1.1.1.1".into(), None),
            ("_INBOX.abc.1".into(), None),
            (String::new(), None),
        ];
        for (reply, expected) in cases {
            assert_eq!(AckInfo::parse(&reply), expected, "{reply}");
        }
    }
}
