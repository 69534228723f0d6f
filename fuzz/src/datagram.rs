//! ChannelData, indications, and the frames that headers are written into.

use hallpass::wire::attribute::{Icmp, kind};
use hallpass::wire::channel_data::{self, HEADER_LEN, padded_len, padding};
use hallpass::wire::frame::{DATAGRAM_MAX, Frame, HEADROOM};
use hallpass::wire::message::{Message, MessageClass, method};
use hallpass::wire::{demux, indication};

use super::bytes::{address, take};

/// Uses the input as ChannelData, as a payload, and as steps on a frame.
pub fn datagram(data: &[u8]) {
    from_client(data);
    from_peer(data);
    frame(data);
}

fn from_client(data: &[u8]) {
    match channel_data::parse_datagram(data) {
        Ok(found) => {
            assert_eq!(demux::classify(data[0]), demux::Kind::ChannelData);
            assert_eq!(found.number, u16::from_be_bytes([data[0], data[1]]));
            assert!((0x4000..=0x7fff).contains(&found.number));
            let len = usize::from(u16::from_be_bytes([data[2], data[3]]));
            assert_eq!(found.payload, HEADER_LEN..HEADER_LEN + len);
            assert!(found.payload.end <= data.len());
            // Bytes after the payload do not matter: without them the message is the same.
            assert_eq!(channel_data::parse_datagram(&data[..found.payload.end]).as_ref(), Ok(&found));
            assert!(channel_data::parse_datagram(&data[..found.payload.end - 1]).is_err());
            let mut frame = Frame::new();
            frame.fill(data);
            frame.keep(found.payload.clone());
            channel_data::prepend(&mut frame, found.number).expect("room for the header that was there");
            assert_eq!(frame.bytes(), &data[..found.payload.end]);
        }
        Err(_) => {
            let whole = data.len() >= 4
                && (64..128).contains(&data[0])
                && HEADER_LEN + usize::from(u16::from_be_bytes([data[2], data[3]])) <= data.len();
            assert!(!whole);
        }
    }
}

fn from_peer(mut data: &[u8]) {
    let data = &mut data;
    let (peer, id) = (address(data), take::<12>(data));
    let [kind_of_icmp, code, d0, d1, d2, d3] = take(data);
    let payload: &[u8] = data;
    let mut frame = Frame::new();
    frame.spare_mut()[..payload.len() + 4].fill(0xee);
    frame.fill(payload);
    indication::prepend_data(&mut frame, peer, id).expect("an input is far below a datagram's size");
    let bytes = frame.bytes().to_vec();
    let message = Message::parse(&bytes).expect("well-formed");
    assert_eq!((message.method(), message.class()), (method::DATA, MessageClass::Indication));
    assert_eq!(message.transaction_id(), id);
    let value = message.attribute(kind::DATA).expect("there");
    assert_eq!(value.value, payload);
    assert!(bytes[value.value_range().end..].iter().all(|&byte| byte == 0), "padding is zero");

    // As a Send indication, the same attributes request the same datagram.
    let mut send = bytes.clone();
    send[..2].copy_from_slice(&0x0016_u16.to_be_bytes());
    let parsed = indication::parse_send(&Message::parse(&send).expect("well-formed")).expect("complete");
    assert_eq!((parsed.peer, &send[parsed.payload], parsed.dont_fragment), (peer, payload, false));

    let icmp = Icmp { icmp_type: kind_of_icmp, code, data: [d0, d1, d2, d3] };
    let bytes = indication::write_icmp(peer, icmp, id);
    let message = Message::parse(&bytes).expect("well-formed");
    let value = message.attribute(kind::ICMP).expect("there").value;
    assert_eq!(Icmp::decode(value), Some(icmp));
    assert!(indication::parse_send(&message).is_err());
}

/// Compares a frame with a plain vector of the same content.
fn frame(mut data: &[u8]) {
    let data = &mut data;
    let mut frame = Frame::new();
    let (mut model, mut headroom, mut tail) = (Vec::new(), HEADROOM, DATAGRAM_MAX + 3);
    let mut steps = 0;
    while !data.is_empty() && steps < 64 {
        steps += 1;
        let [step, size] = take(data);
        match step % 5 {
            0 => {
                let len = data.len().min(usize::from(size));
                model = data[..len].to_vec();
                frame.fill(&model);
                (headroom, tail) = (HEADROOM, DATAGRAM_MAX + 3 - len);
                *data = &data[len..];
            }
            1 => {
                let [start, end] = take::<2>(data).map(usize::from);
                frame.keep(start..end);
                let end = end.min(model.len());
                let start = start.min(end);
                headroom += start;
                tail += model.len() - end;
                model = model[start..end].to_vec();
            }
            2 => {
                let room = frame.prepend(usize::from(size % 80)).map(|room| room.fill(size));
                let fits = usize::from(size % 80) <= headroom;
                assert_eq!(room.is_some(), fits);
                if fits {
                    headroom -= usize::from(size % 80);
                    model.splice(..0, std::iter::repeat_n(size, usize::from(size % 80)));
                }
            }
            3 => {
                let len = padding(model.len());
                assert_eq!(frame.pad(len).is_some(), len <= tail);
                if len <= tail {
                    model.resize(padded_len(model.len()), 0);
                    tail -= len;
                }
            }
            _ => {
                let number = 0x4000 | u16::from(size);
                let wrote = channel_data::prepend(&mut frame, number);
                assert_eq!(wrote.is_some(), headroom >= HEADER_LEN);
                if wrote.is_some() {
                    headroom -= HEADER_LEN;
                    let mut header = [0; HEADER_LEN];
                    channel_data::write_header(&mut header, number, model.len() as u16);
                    model.splice(..0, header);
                }
            }
        }
        assert_eq!(frame.bytes(), model);
    }
}
