use super::*;

#[test]
fn a_refusal_names_the_step_and_the_remedy() {
    let text = Step::Proc.failed(nix::Error::EPERM).to_string();
    assert!(text.contains("mount a fresh /proc"), "{text}");
    assert!(text.contains("procMount: Unmasked"), "{text}");
}

#[test]
fn every_step_survives_the_way_from_the_init_to_the_program() {
    for (index, (step, _)) in Step::ALL.iter().enumerate() {
        assert_eq!(tell_refusal(&step.failed(nix::Error::EPERM)), format!("{index} 1"));
    }
}
