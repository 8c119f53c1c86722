use std::fmt;

use openflow::action::HashFields;
use openflow::message::flow_mod::{Command, FlowMod};
use openflow::testing::Random;
use openflow::text::{Names, flow_mod};
use openflow::{Field, Match};

use super::channel::METERS;
use super::group::Group;
use super::values::{PORTS, fields_of, matching, usual};

/// Tables that rules are in.
const TABLES: u64 = 6;

/// The table of rules that are learnt. Packets come to it first, if at all: with Open vSwitch a packet
/// finds what it has had learnt itself, and with ours only those behind it do.
const LEARNT: u8 = 20;

/// What is done last behind a header that is taken off: with nothing left to do a packet begins anew, and a header that
/// is put on again would have it go in circles.
const BEHIND: &str = "output:1";

/// A rule, as the parts of its text, so that some can be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub table: u8,
    pub priority: u16,
    pub matching: Match,
    pub actions: Vec<String>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, priority, matching, actions } = self;
        let comma = if matching.is_empty() { "" } else { "," };
        let actions = if actions.is_empty() { "drop".to_owned() } else { actions.join(",") };
        write!(f, "table={table},priority={priority},{matching}{comma}actions={actions}")
    }
}

impl Rule {
    /// What is sent; nothing where the actions do not fit each other or the match.
    pub fn change(&self) -> Option<FlowMod> {
        flow_mod(&self.to_string(), Command::Add, Names::NONE).ok()
    }

    /// Whether what becomes of a packet depends on those before it.
    pub fn remembers(&self) -> bool {
        // Where a part of a label is written, Open vSwitch writes the rest of it as it was in the first packet.
        let words = ["NORMAL", "mpls_label", "mpls_tc", "mpls_ttl"];
        self.learns() || self.tracks() || words.iter().any(|word| self.has(word))
    }

    /// Whether a packet goes two ways in Open vSwitch, by how long it is, and rules of both count it.
    pub fn counts_twice(&self) -> bool {
        self.has("check_pkt_larger")
    }

    /// Whether a packet may become shorter on its way, which Open vSwitch counts in the rules behind that.
    pub fn shortens(&self) -> bool {
        self.has("pop_mpls")
    }

    /// Whether a packet may be looked at anew in Open vSwitch, which does not know by then whose actions are in the set.
    pub fn goes_round(&self) -> bool {
        self.has("pop_mpls") || self.has("decap")
    }

    /// Whether any of its actions has this word.
    pub fn has(&self, word: &str) -> bool {
        self.actions.iter().any(|action| action.contains(word))
    }

    /// Whether packets are tracked.
    pub fn tracks(&self) -> bool {
        self.has("ct(")
    }

    /// Whether rules are made of packets.
    pub fn learns(&self) -> bool {
        self.has("learn(")
    }
}

/// What no rule of a set does: words of actions.
#[derive(Clone, Debug, Default)]
pub struct Banned(Vec<&'static str>);

impl Banned {
    pub fn add(&mut self, word: &'static str) {
        self.0.push(word);
    }

    pub fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn add_all(&mut self, words: &[&'static str], rules: &mut [Rule]) {
        self.0.extend(words);
        rules.iter_mut().for_each(|rule| self.leave(&mut rule.actions));
    }

    /// Leaves the actions that may be.
    pub fn leave(&self, actions: &mut Vec<String>) {
        actions.retain(|action| !self.0.iter().any(|word| action.contains(word)));
    }
}

/// Rules for a few tables, so that most packets come to several. If they are to `switch`, some have
/// packets switched as usual, and none of the others does what a switch without rules has a view of its
/// own on: tags, and where packets are from.
///
/// Buckets of `groups` do nothing that rules do not.
pub fn rules(random: &mut Random, switch: bool, groups: &mut [Group]) -> (Vec<Rule>, Banned) {
    let (mut rules, mut banned) = (any_rules(random), Banned::default());
    if !groups.is_empty() {
        // Open vSwitch looks at packets anew where labels are gone, and counts in groups what is left then;
        // and it writes to wrong places of packets that it has compared the length of in buckets.
        banned.add_all(&["mpls", "check_pkt_larger"], &mut rules);
        // Headers that are put on or taken off in a bucket it has on or off behind the group, too.
        banned.add_all(&["encap(nsh", "decap"], &mut rules);
        let buckets = groups.iter_mut().flat_map(|group| &mut group.buckets);
        buckets.for_each(|bucket| banned.leave(&mut bucket.actions));
    }
    if rules.iter().any(Rule::counts_twice) {
        // Open vSwitch has packets that are not longer end where longer ones would, and not where they do;
        // and what longer ones would take from the stack is not there for them.
        banned.add_all(&["exit", "pop:"], &mut rules);
    }
    if random.once_in(8) {
        // Where no header is put on, none is taken off for ever: a packet begins anew behind the last that is.
        banned.add_all(&["encap("], &mut rules);
        rules.iter_mut().for_each(Rule::end_with_header);
    }
    if switch {
        // Behind a header of Ethernet that is put on, all packets are from the station that has no address.
        banned.add_all(&["vlan", "eth_src", "ETH_SRC", "dl_src", "encap(ethernet)"], &mut rules);
        for rule in &mut rules {
            if random.once_in(3) {
                rule.push("NORMAL".to_owned());
            }
        }
    }
    if random.once_in(3) {
        // How long a packet is when it is cut depends on when Open vSwitch has put tags on; and what is to be cut, but
        // no port takes it without Ethernet, it cuts where the packet goes out next.
        banned.add_all(&["vlan", "_mpls", "decap", "encap("], &mut rules);
        for bucket in groups.iter_mut().flat_map(|group| &mut group.buckets) {
            banned.leave(&mut bucket.actions);
        }
        for rule in &mut rules {
            if random.once_in(3) {
                let (port, length) = (1 + random.below(PORTS.into()), 14 + random.below(80));
                rule.insert(0, format!("output(port={port},max_len={length})"));
            }
        }
    }
    if rules.iter().any(Rule::learns) {
        for rule in rules.iter_mut().filter(|rule| rule.table == 0) {
            rule.insert(0, format!("resubmit(,{LEARNT})"));
        }
    }
    // What was left out may be what others rest on: learning from a packet of IP, where no label is gone.
    rules.retain(|rule| rule.change().is_some());
    (rules, banned)
}

/// A rule of its own.
pub fn any_rule(random: &mut Random) -> Rule {
    rule(random)
}

/// A rule with other actions than this one has, none of them `banned`.
pub fn other_actions(random: &mut Random, rule: &Rule, banned: &Banned) -> Rule {
    let Rule { table, priority, ref matching, .. } = *rule;
    let mut other = rule_in(random, table, matching.clone());
    other.priority = priority;
    banned.leave(&mut other.actions);
    other
}

fn any_rules(random: &mut Random) -> Vec<Rule> {
    let count = 4 + random.below(16);
    let mut rules: Vec<Rule> = (0..count).map(|_| rule(random)).collect();
    for table in 0..u8::try_from(TABLES).unwrap_or(0) {
        if !random.once_in(3) {
            let mut last = rule_in(random, table, Match::new());
            last.priority = 0;
            rules.push(last);
        }
    }
    if random.once_in(6) {
        let found = conjunction(random);
        rules.retain(|rule| !found.iter().any(|clause| clause.hides(rule)));
        rules.extend(found);
    }
    rules
}

fn rule(random: &mut Random) -> Rule {
    // Most in the first table, so that packets find one.
    let table = if random.once_in(2) { 0 } else { random.below(TABLES) };
    let matching = matching(random);
    rule_in(random, u8::try_from(table).unwrap_or(0), matching)
}

fn rule_in(random: &mut Random, table: u8, matching: Match) -> Rule {
    // Of two of the same priority it is open which one is taken.
    let priority = priority(random);
    let mut rule = Rule { table, priority, matching, actions: Vec::new() };
    let kinds = Kinds { matching: rule.matching.clone(), table };
    for _ in 0..1 + random.below(5) {
        let action = kinds.action(random, 2);
        rule.push(action);
    }
    if rule.actions.last().is_some_and(|last| takes_off(last)) {
        rule.push(BEHIND.to_owned());
    }
    for tail in kinds.tail(random) {
        rule.push(tail);
    }
    rule
}

/// Whether an action takes a header off.
fn takes_off(action: &str) -> bool {
    action.starts_with("decap")
}

fn priority(random: &mut Random) -> u16 {
    u16::try_from(1 + random.below(60_000)).unwrap_or(1)
}

impl Rule {
    /// Adds an action if it may be there.
    fn push(&mut self, action: String) {
        self.actions.push(action);
        if self.change().is_none() {
            self.actions.pop();
        }
    }

    /// Puts an action at a place among the others, if it may be there.
    pub fn insert(&mut self, at: usize, action: String) {
        if self.is_clause() {
            return;
        }
        self.actions.insert(at, action);
        if self.change().is_none() {
            self.actions.remove(at);
        }
    }

    /// Leaves nothing to do behind a header that is taken off.
    fn end_with_header(&mut self) {
        if let [.., header, last] = self.actions.as_slice()
            && takes_off(header)
            && last == BEHIND
        {
            self.actions.pop();
        }
    }

    /// Whether it is found together with others.
    pub fn is_of_conjunction(&self) -> bool {
        self.is_clause() || self.matching.get(Field::ConjId).is_some()
    }

    /// Whether it is a clause with the match of that rule, which Open vSwitch then does not find where all clauses
    /// are met.
    pub fn hides(&self, other: &Self) -> bool {
        self.is_clause()
            && !other.is_clause()
            && (self.table, &self.matching) == (other.table, &other.matching)
    }

    fn is_clause(&self) -> bool {
        self.actions.iter().any(|action| action.starts_with("conjunction"))
    }
}

/// Rules that are found together.
fn conjunction(random: &mut Random) -> Vec<Rule> {
    let (table, priority) = (0, priority(random));
    let id = 1 + random.below(2);
    let mut rules = Vec::new();
    for (clause, field) in [(1, Field::IpSrc), (2, Field::TcpDst)] {
        for _ in 0..1 + random.below(2) {
            let mut matching = Match::new().with(Field::EthType, 0x0800).with(Field::IpProto, 6);
            matching.set(field, usual(random, field));
            let actions = vec![format!("conjunction({id},{clause}/2)")];
            rules.push(Rule { table, priority, matching, actions });
        }
    }
    let matching = Match::new().with(Field::ConjId, id.into());
    rules.push(rule_in(random, table, matching));
    rules
}

/// The actions that packets of a rule may have.
pub struct Kinds {
    pub matching: Match,
    pub table: u8,
}

/// Registers and the like, which all packets have.
const BESIDE: [Field; 14] = [
    Field::Reg0,
    Field::Reg0,
    Field::Reg1,
    Field::Reg2,
    Field::Reg5,
    Field::Metadata,
    Field::Xreg1,
    Field::Xxreg1,
    Field::Reg9,
    Field::PktMark,
    Field::TunId,
    Field::TunSrc,
    Field::TunDst,
    Field::TunGbpId,
];

impl Kinds {
    fn field(&self, random: &mut Random, is_written: bool) -> Field {
        let fields = fields_of(&self.matching);
        // Of these Open vSwitch makes the checksum anew, right or wrong as it was.
        let is_odd = |field: &Field| [Field::NdReserved, Field::NdOptionsType].contains(field);
        let fits = |field: &Field| !is_written || field.is_writable() && !is_odd(field);
        let may = |random: &mut Random| {
            let of_packet = random.once_in(2).then(|| random.one(&fields)).flatten();
            of_packet.or_else(|| random.one(&BESIDE))
        };
        (0..9).find_map(|_| may(random).filter(fits)).unwrap_or(Field::Reg0)
    }

    /// Some bits of a field.
    fn part(&self, random: &mut Random, is_written: bool, most: u16) -> (String, u16) {
        let field = self.field(random, is_written);
        part(random, field, most)
    }

    fn port(random: &mut Random) -> String {
        match random.below(20) {
            0 => "in_port".to_owned(),
            1 => "all".to_owned(),
            2 => "flood".to_owned(),
            3 => "LOCAL".to_owned(),
            4 => "77".to_owned(),
            _ => (1 + random.below(u64::from(PORTS))).to_string(),
        }
    }

    /// A sample for collectors, of which there are none: the packet goes on as it is.
    fn sample(random: &mut Random) -> String {
        let probability = random.one(&[1, 32_768, 65_535]).unwrap_or(1);
        let port = random.one(&["", ",sampling_port=1", ",sampling_port=2,egress"]).unwrap_or("");
        format!("sample(probability={probability},collector_set_id=1,obs_point_id=7{port})")
    }

    /// Has controllers be told of a packet, and rarely has it stop.
    fn controller(random: &mut Random) -> String {
        let len = random.one(&[0, 14, 20, 60, 128, 65_535]).unwrap_or(128);
        let reason = ["action", "no_match", "invalid_ttl", "group", "action_set"];
        match random.below(8) {
            0..3 => format!("controller:{len}"),
            3 => {
                let reason = random.one(&reason).unwrap_or("action");
                format!("controller(max_len={len},reason={reason})")
            }
            4 => format!("controller(max_len={len},id={})", random.below(2)),
            5 => "controller(pause)".to_owned(),
            _ => format!("controller(max_len={len},userdata=01.{:02x}.03)", random.below(3)),
        }
    }

    fn later(&self, random: &mut Random) -> u64 {
        let table = u64::from(self.table);
        // Rarely back, which may be a loop.
        if random.once_in(40) {
            1 + random.below(TABLES - 1)
        } else {
            (table + 1 + random.below(3)).min(9)
        }
    }

    /// An action; lists in it have lists in them to this depth.
    pub fn action(&self, random: &mut Random, depth: u8) -> String {
        match random.below(48) {
            0..8 => format!("output:{}", Self::port(random)),
            8 | 9 => format!("output:{}", part(random, Field::Reg0, 16).0),
            10..14 => format!("resubmit(,{})", self.later(random)),
            14 => {
                let port = usual(random, Field::InPort);
                format!("resubmit({port},{})", self.later(random))
            }
            15..18 => self.set_field(random),
            18 | 19 => {
                let (target, bits) = self.part(random, true, 64);
                let value = random.bits() >> (64 - bits);
                format!("load:{value:#x}->{target}")
            }
            20 | 21 => {
                let (target, bits) = self.part(random, true, 128);
                let source = self.field(random, false);
                if source.bits() < bits {
                    return self.set_field(random);
                }
                let offset = random.below(u64::from(source.bits() - bits + 1));
                let end = offset + u64::from(bits) - 1;
                format!("move:{}[{offset}..{end}]->{target}", source.name())
            }
            22 => format!("push:{}", self.part(random, false, 128).0),
            23 => format!("pop:{}", self.part(random, true, 128).0),
            24 | 25 => Self::tag(random),
            26 => "dec_ttl".to_owned(),
            27 => Self::old(random),
            28 if depth > 0 => {
                let mut actions: Vec<String> =
                    (0..1 + random.below(3)).map(|_| self.action(random, depth - 1)).collect();
                if actions.last().is_none_or(|last| takes_off(last)) {
                    actions.push(BEHIND.to_owned());
                }
                format!("clone({})", actions.join(","))
            }
            29 if random.once_in(4) => "exit".to_owned(),
            30 if random.once_in(2) => Self::learn(random),
            31 => format!("set_queue:{}", random.below(3)),
            32 if random.once_in(2) => Self::sample(random),
            32 => "note:01.02".to_owned(),
            33 => format!("enqueue:{}:1", 1 + random.below(PORTS.into())),
            36 => self.multipath(random),
            37 => self.bundle(random),
            39 | 40 => Self::label(random),
            41..45 => Self::header(random),
            45 | 46 => Self::controller(random),
            47 => format!("meter:{}", 1 + random.below(METERS.into())),
            38 => {
                let (length, bit) = (14 + random.below(100), random.below(4));
                format!("check_pkt_larger({length})->reg0[{bit}]")
            }
            _ => self.set_field(random),
        }
    }

    fn set_field(&self, random: &mut Random) -> String {
        let field = self.field(random, true);
        let value = usual(random, field) & field.full_mask();
        let text = |value: u128| text(field, value);
        if field.is_maskable() && random.once_in(4) {
            let mask = random.bits().to_string().parse::<u128>().unwrap_or(1) & field.full_mask();
            let mask = if mask == 0 { field.full_mask() } else { mask };
            return format!("set_field:{}/{}->{field}", text(value & mask), text(mask));
        }
        format!("set_field:{}->{field}", text(value))
    }

    /// What a hash is made of, and a number that changes it. Of packets without IP Open vSwitch takes the
    /// hash of the first one for that of others (`symmetric_l3l4`).
    fn hash(&self, random: &mut Random) -> String {
        let fields = HashFields::from_wire(u16::try_from(random.below(7)).unwrap_or(0));
        let is_ip = matches!(self.matching.exact(Field::EthType), Some(0x0800 | 0x86DD));
        let needs_ip = [HashFields::SymmetricL3L4, HashFields::SymmetricL3L4Udp];
        let fields = fields.filter(|fields| is_ip || !needs_ip.contains(fields));
        let fields = fields.unwrap_or(HashFields::EthSrc);
        format!("{fields},{}", random.below(3) * 50)
    }

    /// The number of a link, written to a field.
    fn multipath(&self, random: &mut Random) -> String {
        let (target, bits) = self.part(random, true, 16);
        let most = 1 << bits.min(7);
        let links = 1 + random.below(most);
        let algorithm = ["modulo_n", "hash_threshold", "hrw", "iter_hash"];
        let algorithm = random.one(&algorithm).unwrap_or("hrw");
        let arg = random.below(3) * links;
        format!("multipath({},{algorithm},{links},{arg},{target})", self.hash(random))
    }

    /// One of a few ports, or its number, written to a field.
    fn bundle(&self, random: &mut Random) -> String {
        let hash = self.hash(random);
        let algorithm = if random.once_in(4) { "active_backup" } else { "hrw" };
        let members: Vec<String> =
            (0..random.below(6)).map(|_| (1 + random.below(PORTS.into())).to_string()).collect();
        let members = members.join(",");
        if random.once_in(2) {
            return format!("bundle({hash},{algorithm},ofport,members:[{members}])");
        }
        let (target, _) = self.part(random, true, 16);
        format!("bundle_load({hash},{algorithm},ofport,{target},members:[{members}])")
    }

    fn tag(random: &mut Random) -> String {
        match random.below(6) {
            0 => format!("mod_vlan_vid:{}", 1 + random.below(20)),
            1 => format!("mod_vlan_pcp:{}", random.below(8)),
            2 => "push_vlan:0x8100".to_owned(),
            3 => "push_vlan:0x88a8".to_owned(),
            4 => "strip_vlan".to_owned(),
            _ => "pop_vlan".to_owned(),
        }
    }

    /// Of labels of MPLS.
    fn label(random: &mut Random) -> String {
        match random.below(10) {
            0 | 1 => "push_mpls:0x8847".to_owned(),
            2 => "push_mpls:0x8848".to_owned(),
            3 => "pop_mpls:0x8847".to_owned(),
            4 | 5 => "pop_mpls:0x0800".to_owned(),
            6 => "pop_mpls:0x86dd".to_owned(),
            7 => format!("set_mpls_label:{}", random.below(3)),
            8 => format!("set_mpls_ttl:{}", random.below(3)),
            _ => "dec_mpls_ttl".to_owned(),
        }
    }

    /// Of headers in front of all.
    fn header(random: &mut Random) -> String {
        match random.below(12) {
            0 | 1 => "encap(ethernet)".to_owned(),
            2 | 3 => "encap(nsh)".to_owned(),
            4 => "encap(nsh(md_type=2,tlv(0x1000,10,0x12345678),tlv(0x2000,20,0x0a0b0c0d0e)))"
                .to_owned(),
            6 => "decap(packet_type(ns=0,type=0))".to_owned(),
            7 => "decap(packet_type(ns=1,type=0x8847))".to_owned(),
            8 => "dec_nsh_ttl".to_owned(),
            _ => "decap()".to_owned(),
        }
    }

    fn old(random: &mut Random) -> String {
        let port = random.below(3) * 500;
        match random.below(10) {
            0 => "mod_dl_src:02:00:00:00:00:07".to_owned(),
            1 => "mod_dl_dst:02:00:00:00:00:08".to_owned(),
            2 => format!("mod_nw_src:10.0.0.{}", random.below(4)),
            3 => format!("mod_nw_dst:10.0.0.{}", random.below(4)),
            4 => format!("mod_nw_tos:{}", random.below(64) * 4),
            5 => format!("mod_nw_ttl:{}", random.below(3)),
            6 => format!("mod_tp_src:{port}"),
            7 => format!("set_tunnel:{}", random.below(4)),
            8 => format!("set_tunnel64:{:#x}", random.below(4) << 33),
            _ => format!("mod_tp_dst:{port}"),
        }
    }

    fn learn(random: &mut Random) -> String {
        let mut parts = vec![format!("table={LEARNT}"), format!("priority={}", priority(random))];
        let specs = [
            "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]",
            "NXM_OF_VLAN_TCI[0..11]",
            "reg1=0x1",
            "eth_type=0x800,NXM_OF_IP_SRC[]=NXM_OF_IP_DST[]",
            "load:NXM_OF_IN_PORT[]->NXM_NX_REG0[0..15]",
            "load:0x5->NXM_NX_REG2[4..7]",
            "output:NXM_OF_IN_PORT[]",
            "output:NXM_NX_REG0[0..15]",
        ];
        for spec in specs {
            if random.once_in(3) {
                parts.push(spec.to_owned());
            }
        }
        if random.once_in(4) {
            parts.push(format!(
                "limit={},result_dst=reg5[{}]",
                1 + random.below(4),
                random.below(8)
            ));
        }
        format!("learn({})", parts.join(","))
    }

    /// What comes behind actions.
    fn tail(&self, random: &mut Random) -> Vec<String> {
        let mut tail = Vec::new();
        if random.once_in(12) {
            tail.push("clear_actions".to_owned());
        }
        if random.once_in(6) {
            let actions: Vec<String> =
                (0..1 + random.below(3)).map(|_| self.written(random)).collect();
            tail.push(format!("write_actions({})", actions.join(",")));
        }
        if random.once_in(8) {
            tail.push(format!("write_metadata:{:#x}/{:#x}", random.below(4), 1 + random.below(15)));
        }
        if random.once_in(4) && self.table < 9 {
            tail.push(format!("goto_table:{}", u64::from(self.table) + 1 + random.below(2)));
        }
        tail
    }

    /// An action that may be in the action set.
    fn written(&self, random: &mut Random) -> String {
        match random.below(9) {
            0..3 => format!("output:{}", Self::port(random)),
            3 => Self::tag(random),
            8 => format!("controller:{}", random.below(100)),
            4 => "dec_ttl".to_owned(),
            5 => format!("set_queue:{}", random.below(3)),
            _ => self.set_field(random),
        }
    }
}

/// Some bits of a field, `most` of them, and how many.
fn part(random: &mut Random, field: Field, most: u16) -> (String, u16) {
    let bits = field.bits();
    if bits <= most && random.once_in(2) {
        return (format!("{}[]", field.name()), bits);
    }
    let offset = u16::try_from(random.below(bits.into())).unwrap_or(0);
    let count = 1 + random.below(u64::from((bits - offset).min(most)));
    let count = u16::try_from(count).unwrap_or(1);
    (format!("{}[{offset}..{}]", field.name(), offset + count - 1), count)
}

/// A value as it is written.
fn text(field: Field, value: u128) -> String {
    use openflow::field::Format;
    match field.format() {
        Format::Ethernet => {
            let bytes = value.to_be_bytes();
            let bytes: Vec<String> = bytes[10..].iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(":")
        }
        Format::Ipv4 => std::net::Ipv4Addr::from(u32::try_from(value).unwrap_or(0)).to_string(),
        Format::Ipv6 => std::net::Ipv6Addr::from(value).to_string(),
        _ => format!("{value:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_can_be_sent_and_do_something() {
        let mut random = Random::new(1);
        let all: Vec<Rule> =
            (0..200).flat_map(|n| rules(&mut random, n % 2 == 0, &mut []).0).collect();
        let wrong = all.iter().find(|rule| rule.change().is_none());
        assert_eq!(wrong.map(ToString::to_string), None);
        // Of actions that may not be there few enough are asked for.
        let idle = all.iter().filter(|rule| rule.actions.is_empty()).count();
        assert!(idle * 10 < all.len(), "{idle} of {}", all.len());
        let is_done = |word: &str| all.iter().any(|rule| rule.to_string().contains(word));
        for word in ["move:", "learn(", "clone(", "write_actions(", "conj_id", "push_vlan", "pop:"]
        {
            assert!(is_done(word), "{word}");
        }
        for word in
            ["multipath(", "bundle(", "bundle_load(", "result_dst", "check_pkt_larger", "push_mpls"]
        {
            assert!(is_done(word), "{word}");
        }
    }
}
