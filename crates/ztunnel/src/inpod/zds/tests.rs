use istio_api::zds::{AddWorkload, DelWorkload, KeepWorkload, SnapshotSent};

use super::*;

const NONE: Vec<char> = Vec::new();

fn packet(payload: Payload) -> Vec<u8> {
    WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}

fn add() -> Vec<u8> {
    let info = WorkloadInfo { name: "web".into(), namespace: "shop".into(), service_account: "sa".into() };
    packet(Payload::Add(AddWorkload { uid: "u1".into(), workload_info: Some(info) }))
}

fn read_ack(bytes: &[u8]) -> String {
    let Some(Answer::Ack(ack)) = WorkloadResponse::decode(bytes).unwrap().payload else { panic!("no ack") };
    ack.error
}

#[test]
fn our_packets_are_the_bytes_that_the_agent_knows() {
    assert_eq!(hello(), [0x08, 0x01]);
    assert_eq!(ack(&Ok(())), [0x0a, 0x00]);
    assert_eq!(ack(&Err("no".into())), [0x0a, 0x04, 0x0a, 0x02, b'n', b'o']);
}

#[test]
fn an_error_text_fits_the_agents_buffer_and_is_cut_between_characters() {
    for text in ["x".repeat(2000), "ü".repeat(2000), format!("x{}", "ü".repeat(2000)), "🦀".repeat(400)] {
        let bytes = ack(&Err(text.clone()));
        assert!(bytes.len() < 1024);
        let read = read_ack(&bytes);
        assert!(text.starts_with(&read) && read.len() > MAX_ERROR - 4);
    }
    assert_eq!(read_ack(&ack(&Err("short".into()))), "short");
}

#[test]
fn each_kind_of_request_is_understood() {
    let web = LocalWorkload { name: "web".into(), namespace: "shop".into(), service_account: "sa".into() };
    assert_eq!(parse(&add(), vec!['d']), Ok(Message::Add("u1".into(), Some(web), 'd')));
    let nobody = packet(Payload::Add(AddWorkload { uid: "u1".into(), workload_info: None }));
    assert_eq!(parse(&nobody, vec!['d']), Ok(Message::Add("u1".into(), None, 'd')));
    let keep = packet(Payload::Keep(KeepWorkload { uid: "u2".into() }));
    assert_eq!(parse(&keep, NONE), Ok(Message::Keep("u2".into())));
    let del = packet(Payload::Del(DelWorkload { uid: "u3".into() }));
    assert_eq!(parse(&del, NONE), Ok(Message::Del("u3".into())));
    assert_eq!(packet(Payload::SnapshotSent(SnapshotSent {})), [0x1a, 0x00]);
    assert_eq!(parse(&[0x1a, 0x00], NONE), Ok(Message::SnapshotSent));
}

#[test]
fn packets_that_break_the_agreement_are_told_apart() {
    assert_eq!(parse(&add(), NONE), Err(ZdsError::NoDescriptor));
    assert_eq!(parse(&add(), vec!['d', 'e']), Err(ZdsError::ManyDescriptors(2)));
    assert_eq!(parse(&[0x1a, 0x00], vec!['d']), Err(ZdsError::UnexpectedDescriptor));
    assert_eq!(parse(&[], NONE), Err(ZdsError::NoPayload));
    assert!(matches!(parse(&[0xff; 20], NONE), Err(ZdsError::Malformed(_))));
}

#[test]
fn no_prefix_of_a_message_is_taken_for_one() {
    let whole = add();
    for end in 0..whole.len() {
        assert!(parse(&whole[..end], vec!['d']).is_err(), "{end} bytes");
    }
}
