use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use pcap_parser::pcap::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header};

/// An Ethernet frame of `len` bytes without FCS whose payload depends on `seed` alone,
/// with a local experimental EtherType (IEEE 802, 0x88b5).
#[must_use]
pub fn frame(dst: [u8; 6], src: [u8; 6], len: usize, seed: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = dst.into_iter().chain(src).chain([0x88, 0xb5]).collect();
    bytes.extend(seed.to_be_bytes());
    // A generator of 32 bits (Numerical Recipes' constants); its top byte is good enough.
    let mut state = seed;
    while bytes.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend(&state.to_be_bytes()[..1]);
    }
    bytes
}

/// `count` frames of the sizes given in turn.
#[must_use]
pub fn frames(dst: [u8; 6], src: [u8; 6], sizes: &[usize], count: u32) -> Vec<Vec<u8>> {
    (0..count).zip(sizes.iter().cycle()).map(|(seed, &len)| frame(dst, src, len, seed)).collect()
}

/// Writes frames to a pcap file, a microsecond apart.
///
/// # Errors
/// When the file cannot be written.
pub fn write_pcap(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    // Microseconds, version 2.4, UTC, frames of up to 65,535 bytes, Ethernet
    // (draft-ietf-opsawg-pcap, section 4).
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    for (n, frame) in (0..).zip(frames) {
        let length = u32::try_from(frame.len())?;
        bytes.extend([0, n, length, length].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(frame);
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// Reads all whole frames of a pcap file; a record cut short at its end (a writer
/// that still runs) is left out.
///
/// # Errors
/// When the file cannot be read or is not pcap.
pub fn read_pcap(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let Ok((mut rest, header)) = parse_pcap_header(&bytes) else {
        bail!("{}: no pcap file", path.display())
    };
    let parse = if header.is_bigendian() { parse_pcap_frame_be } else { parse_pcap_frame };
    let mut frames = Vec::new();
    while let Ok((after, record)) = parse(rest) {
        frames.push(record.data.to_owned());
        rest = after;
    }
    Ok(frames)
}

/// The first difference between what was sent and what arrived, regardless of order.
#[must_use]
pub fn difference(sent: &[Vec<u8>], arrived: &[Vec<u8>]) -> Option<String> {
    let sorted = |frames: &[Vec<u8>]| {
        let mut frames = frames.to_vec();
        frames.sort();
        frames
    };
    let (sent, arrived) = (sorted(sent), sorted(arrived));
    if sent == arrived {
        return None;
    }
    let missing = sent.iter().find(|frame| arrived.binary_search(frame).is_err());
    let strange = arrived.iter().find(|frame| sent.binary_search(frame).is_err());
    let head = |frame: &Vec<u8>| (frame.len(), frame[..frame.len().min(24)].to_vec());
    Some(format!(
        "{} frames sent, {} arrived; first missing {:x?}, first that nobody sent {:x?}",
        sent.len(),
        arrived.len(),
        missing.map(head),
        strange.map(head)
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn frames_survive_a_pcap_file_and_differences_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames.pcap");
        let mut frames = frames([2; 6], [4; 6], &[60, 1514, 9014], 10);
        write_pcap(&path, &frames).unwrap();
        let read = read_pcap(&path).unwrap();
        assert_eq!(difference(&frames, &read), None);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        assert_eq!(read_pcap(&path).unwrap(), read[..9]);
        file.set_len(23).unwrap();
        assert!(read_pcap(&path).is_err());
        frames[3][20] ^= 1;
        assert!(difference(&frames, &read).is_some());
        assert!(difference(&read[1..], &read).is_some());
    }
}
