//! Devices whose capabilities and registers make no sense.

use proptest::prelude::*;

use super::super::capability::{self, Layout};
use super::super::model::{FIRST_CAPABILITY, NOTIFY_MULTIPLIER};
use super::super::window::{MappedBars, Place, Windows as _};
use super::*;

/// The layout that a model has after its configuration space was changed.
fn find(change: impl FnOnce(&mut [u8])) -> Result<Option<Layout>, String> {
    let model = Model::new(&Shape::default());
    change(&mut model.config());
    capability::find(&model).map_err(|error| error.to_string())
}

/// Where the list of capabilities begins.
const FIRST: u8 = 0x40;

/// Offset of byte `at` of the capability of a kind.
const fn byte(kind: usize, at: usize) -> usize {
    FIRST_CAPABILITY + 20 * (kind - 1) + at
}

#[test]
fn capabilities_are_found() {
    let layout = find(|_| {}).unwrap().unwrap();
    assert_eq!(layout.common, Place { bar: 0, offset: 0, len: 56 });
    assert_eq!(layout.notify_multiplier, NOTIFY_MULTIPLIER);
    assert_eq!(find(|config| config[6] = 0), Ok(None));
    // Other capabilities before them do not matter, nor further ones of the same kind behind.
    let other = find(|config| {
        config[0x34] = 0xC0;
        config[0xC0..0xC3].copy_from_slice(&[0x11, FIRST, 0]);
        config[byte(4, 1)] = 0xD0;
        config[0xD0..0xE0].copy_from_slice(&[9, 0, 16, 1, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    });
    assert_eq!(other.unwrap(), Some(layout));
}

#[test]
fn capabilities_that_make_no_sense_are_refused() {
    let refused = |change: &dyn Fn(&mut [u8]), expected: &str| {
        let error = find(|config| change(config)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    refused(&|config| config.fill(0xFF), "does not answer");
    refused(&|config| config[0x34] = 0x10, "inside the header");
    refused(&|config| config[byte(4, 1)] = FIRST, "circle");
    refused(&|config| config[byte(1, 1)] = FIRST, "circle");
    refused(&|config| config[byte(1, 3)] = 77, "missing");
    refused(&|config| config[byte(2, 2)] = 16, "missing");
    refused(&|config| config[byte(3, 4)] = 6, "missing");
    refused(&|config| config[byte(1, 12)] = 55, "common registers");
    refused(&|config| config[byte(1, 8)] = 2, "common registers");
    refused(&|config| config[byte(4, 12)] = 7, "device registers");
    refused(&|config| config[byte(3, 12)] = 0, "interrupt status registers");
    refused(&|config| config[byte(2, 8)..byte(2, 16)].fill(0xFE), "notify registers");
    refused(&|config| config[byte(2, 16)] = 3, "apart");
    refused(&|config| config[byte(2, 16)] = 1, "apart");
}

#[test]
fn one_notify_register_may_serve_all_rings() {
    let layout = find(|config| config[byte(2, 16)] = 0).unwrap().unwrap();
    assert_eq!(layout.notify_at(0, 2), Some(0));
    assert_eq!(layout.notify_at(u16::MAX, 4), Some(0));
    let layout = find(|_| {}).unwrap().unwrap();
    assert_eq!(layout.notify_at(15, 4), Some(60));
    assert_eq!(layout.notify_at(16, 2), None);
    let layout = find(|config| config[byte(2, 19)] = 0x80).unwrap_err();
    assert!(layout.contains("apart"));
    let far = find(|config| config[byte(2, 16)..byte(2, 20)].copy_from_slice(&[0, 0, 0, 0x80]));
    assert_eq!(far.unwrap().unwrap().notify_at(2, 2), None);
}

#[test]
fn a_ring_without_a_notify_register_is_refused() {
    let model = Model::new(&Shape::default());
    model.config()[byte(2, 12)] = 4;
    let error = refusal(&model, "");
    assert!(error.contains("ring 1 has notify register 1"), "{error}");
}

#[test]
fn registers_outside_of_their_base_address_register_are_refused() {
    let model = Arc::new(Model::new(&Shape::default()));
    let mut bars = MappedBars::new(model);
    let place = |bar, offset, len| Place { bar, offset, len };
    let window = bars.open(place(0, 0x3FF8, 8)).unwrap();
    window.write32(4, 0x0102_0304);
    assert_eq!((window.read32(4), window.read8(4), window.read16(6)), (0x0102_0304, 4, 0x0102));
    window.write32(8, 1);
    assert_eq!((window.read32(8), window.read16(7), window.read8(8)), (u32::MAX, u16::MAX, 255));
    assert_eq!(window.read32(usize::MAX), u32::MAX);
    for bad in [place(0, 0x3FF8, 9), place(0, 0x4000, 1), place(0, u32::MAX, u32::MAX)] {
        let error = bars.open(bad).unwrap_err().to_string();
        assert!(error.contains("register 0 has 0x4000 bytes"), "{error}");
    }
    assert!(bars.open(place(6, 0, 4)).unwrap_err().to_string().contains("register 6"));
    assert!(bars.doorbell(place(1, 0, 4), 0, 0, false).is_err());
}

#[test]
fn impossible_numbers_of_rings_are_refused() {
    for (pairs, expected) in [(0_u16, "0 queue pairs"), (0x8000, "queue pairs"), (9, "has 5 rings")]
    {
        let model = Model::new(&Shape::default());
        model.state().net[8..10].copy_from_slice(&pairs.to_le_bytes());
        let error = refusal(&model, ",queues=2");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_device_that_never_resets_is_given_up_on() {
    let model = Model::new(&Shape::default());
    {
        let mut state = model.state();
        (state.stuck, state.status) = (true, 3);
    }
    let error = refusal(&model, "");
    assert!(error.contains("has not reset itself"), "{error}");
}

#[test]
fn a_device_with_nonsense_for_an_address_gets_another() {
    for mac in [[0; 6], [0xFF; 6], [1, 2, 3, 4, 5, 6]] {
        let model = Model::new(&Shape::default());
        let _running = model.run();
        model.state().net[..6].copy_from_slice(&mac);
        let port = open(&model, "").unwrap();
        assert!(!port.port.control().mac().is_multicast());
        assert_ne!(port.port.control().mac(), MacAddr([0; 6]));
    }
}

proptest! {
    #[test]
    fn any_configuration_space_can_be_read(
        changes in prop::collection::vec((0_usize..256, any::<u8>()), 0..40),
        notify in any::<u16>(),
    ) {
        let layout = find(|config| changes.iter().for_each(|(at, byte)| config[*at] = *byte));
        if let Ok(Some(layout)) = layout
            && let Some(at) = layout.notify_at(notify, 2)
        {
            prop_assert!(u64::from(at) + 2 <= u64::from(layout.notify.len));
        }
    }
}
