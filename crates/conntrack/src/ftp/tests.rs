use proptest::prelude::*;

use super::*;

fn port(address: Option<&str>, place: Range<usize>, has_commas: bool, port: u16) -> Said {
    let address = address.map(|address| address.parse().unwrap());
    Said::Port { address, place, has_commas, port }
}

#[test]
fn what_clients_announce_is_read() {
    let client = |text: &str, is_v6| said(text.as_bytes(), false, is_v6);
    let one = port(Some("10.1.1.1"), 5..13, true, 200 << 8 | 10);
    assert_eq!(client("PORT 10,1,1,1,200,10\r\n", false), one);
    assert_eq!(client("port 10,1,1,1,200,10\n", false), one);
    let v4 = port(Some("10.1.1.1"), 8..16, false, 6275);
    assert_eq!(client("EPRT |1|10.1.1.1|6275|\r\n", false), v4);
    let v6 = port(Some("fc00::1"), 8..15, false, 6275);
    assert_eq!(client("EPRT |2|fc00::1|6275|\r\n", true), v6);
    assert_eq!(client("eprt !2!fc00::1!6275!\r\n", true), v6);
    for text in
        ["", "USER a\r\n", "PORTS 1\r\n", "227 x (10,1,1,1,200,10)\r\n", " PORT 1,", "EPSV\r\n"]
    {
        assert_eq!(client(text, false), Said::Nothing, "{text:?}");
    }
    // What is for addresses of four bytes says nothing to others.
    assert_eq!(client("PORT 10,1,1,1,200,10\r\n", true), Said::Nothing);
}

#[test]
fn what_servers_announce_is_read() {
    let server = |text: &str, is_v6| said(text.as_bytes(), true, is_v6);
    let text = "227 Entering Passive Mode (10,1,1,2,1,2).\r\n";
    assert_eq!(server(text, false), port(Some("10.1.1.2"), 27..35, true, 258));
    assert_eq!(server("227 =10,1,1,2,0,9\r\n", false), port(Some("10.1.1.2"), 5..13, true, 9));
    let text = "229 Entering Extended Passive Mode (|||6446|)\r\n";
    for is_v6 in [false, true] {
        assert_eq!(server(text, is_v6), port(None, 0..0, false, 6446));
    }
    for text in ["220 Hello\r\n", "PORT 10,1,1,1,200,10\r\n", "227", "1227 (1,1,1,1,1,1)\r\n"] {
        assert_eq!(server(text, false), Said::Nothing, "{text:?}");
    }
}

#[test]
fn what_is_not_all_there_or_too_large_is_bad() {
    for text in [
        "PORT ",
        "PORT 10,1,1,1,200\r\n",
        "PORT 10,1,1,1,200,10",
        "PORT 10,1,1,256,200,10\r\n",
        "PORT 10,1,1,0001,200,10\r\n",
        "PORT 10,1,1,1,256,10\r\n",
        "PORT 10,1,1,1,0,0\r\n",
        "PORT 10.1.1.1.200.10\r\n",
        "PORT \r\n10,1,1,1,200,10\r\n",
        "EPRT |2|fc00::1|6275|\r\n",
        "EPRT |1|10.1.1.1|6275\r\n",
        "EPRT |1|10.1.1.1|65536|\r\n",
        "EPRT |1|10.1.1.1|0|\r\n",
        "EPRT |1|10.1.1|9|\r\n",
        "EPRT |1|10.1.1.1",
    ] {
        assert_eq!(said(text.as_bytes(), false, false), Said::Bad, "{text:?}");
    }
    for text in [
        "227 none\r\n",
        "227 Mode (10,1,1,2,1,2",
        "229 Mode 6446\r\n",
        "229 Mode (|||6446|",
        "229 Mode (||6446|)\r\n",
        "229 Mode (|!|6446|)\r\n",
        "229 Mode (5556446|)\r\n",
        "229 Mode (|||70000|)\r\n",
    ] {
        assert_eq!(said(text.as_bytes(), true, false), Said::Bad, "{text:?}");
    }
}

/// The same by a plain look at the text, for messages as they are.
fn model(text: &str) -> Option<(String, u16)> {
    let line = text.split(['\r', '\n']).next()?.strip_prefix("PORT ")?;
    let numbers: Vec<&str> =
        line.trim_start_matches(|c: char| !c.is_ascii_digit()).split(',').collect();
    let [parts @ .., high, low] = numbers.get(..6)? else { return None };
    let low: String = low.chars().take_while(char::is_ascii_digit).collect();
    let of = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u8>().ok().filter(|_| is_number && text.len() <= 3)
    };
    let parts: Option<Vec<String>> = parts.iter().map(|part| Some(of(part)?.to_string())).collect();
    let port = u16::from_be_bytes([of(high)?, of(&low)?]);
    (port != 0).then_some((parts?.join("."), port))
}

proptest! {
    #[test]
    fn messages_are_read_as_by_a_plain_look(
        numbers in prop::collection::vec(prop_oneof![Just(String::new()), "[0-9]{1,4}"], 4..8),
        before in "[ (=]{0,3}",
        end in prop_oneof![Just("\r\n"), Just("x\n"), Just(")"), Just("")],
    ) {
        let text = format!("PORT {before}{}{end}", numbers.join(","));
        let ends_with_digit = text.bytes().last().is_some_and(|byte| byte.is_ascii_digit());
        let expected = model(&text).filter(|_| numbers.len() > 6 || !ends_with_digit);
        match said(text.as_bytes(), false, false) {
            Said::Port { address, place, port, .. } => {
                let written: Vec<&str> = text[place].split(',').collect();
                prop_assert_eq!(written.len(), 4);
                prop_assert_eq!(Some((address.unwrap().to_string(), port)), expected);
            }
            other => prop_assert_eq!((other, expected), (Said::Bad, None), "{}", text),
        }
    }

    #[test]
    fn no_bytes_are_too_much(
        word in prop_oneof![Just("PORT "), Just("EPRT |1|"), Just("227 "), Just("229 (")],
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_server in any::<bool>(),
        is_v6 in any::<bool>(),
    ) {
        let bytes = [word.as_bytes(), &bytes].concat();
        if let Said::Port { address, place, port, .. } = said(&bytes, is_server, is_v6) {
            prop_assert!(port != 0 && place.end <= MOST);
            prop_assert!(address.is_none_or(|address| address.is_ipv6() == is_v6));
        }
    }
}
