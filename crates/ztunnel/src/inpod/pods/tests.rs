use super::*;

/// Pods whose namespaces are characters and whose proxies are named for pod and namespace.
struct Script(Pods<char, String>);

impl Script {
    /// Plays lines of `what happens => what follows`, and checks what follows.
    ///
    /// `add a@1` is a pod `a` in namespace `1` whose proxy starts, and `add a@1!` one whose proxy does not; `try a`
    /// starts a pending pod, and `try a!` fails again. What follows is what is started and stopped, `refused`, or after
    /// `look` what there is, with a `!` at what is pending, and whether it is ready.
    #[track_caller]
    fn play(text: &str) {
        let mut script = Self(Pods::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (happens, follows) = line.split_once("=>").unwrap_or((line, ""));
            let followed = script.step(happens.trim());
            assert_eq!(followed, follows.trim(), "after `{}` in\n{text}", happens.trim());
        }
    }

    fn step(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let fails = rest.ends_with('!');
        let (uid, netns) = rest.trim_end_matches('!').split_once('@').unwrap_or((rest.trim_end_matches('!'), ""));
        let uid = &uid.to_owned();
        let followed = match verb {
            "connect" => {
                self.0.connected();
                Ok(vec![])
            }
            "disconnect" => {
                self.0.disconnected();
                Ok(vec![])
            }
            "add" => self.add(uid, netns.chars().next().unwrap(), fails),
            "try" => Ok(self.retry(uid, fails)),
            "keep" => self.0.keep(uid).map(|()| vec![]),
            "del" => self.0.del(uid).map(|stopped| stopped.into_iter().map(|pod| format!("stop {pod}")).collect()),
            "snapshot" => {
                self.0.snapshot_sent().map(|gone| gone.into_iter().map(|(_, pod)| format!("stop {pod}")).collect())
            }
            "look" => Ok(vec![self.look()]),
            other => panic!("{other}?"),
        };
        followed.map_or_else(|violation| format!("refused: {violation}"), |all: Vec<String>| all.join(", "))
    }

    fn add(&mut self, uid: &PodUid, netns: char, fails: bool) -> Result<Vec<String>, Violation> {
        self.0.mention(uid)?;
        Ok(match self.0.add(uid, &netns) {
            Added::Known => vec![],
            Added::Start { replaces } => {
                let stopped = replaces.map(|old| format!("stop {old}"));
                stopped.into_iter().chain([self.start(uid, netns, fails)]).collect()
            }
        })
    }

    fn retry(&mut self, uid: &PodUid, fails: bool) -> Vec<String> {
        let again = self.0.pending().find(|(pending, _)| *pending == uid).map(|(_, pending)| pending.netns);
        again.into_iter().map(|netns| self.start(uid, netns, fails)).collect()
    }

    fn start(&mut self, uid: &PodUid, netns: char, fails: bool) -> String {
        let who = LocalWorkload { name: uid.as_str().into(), namespace: "ns".into(), service_account: "sa".into() };
        if fails {
            self.0.failed(uid.clone(), who, netns);
        } else {
            self.0.started(uid.clone(), who, netns, format!("{uid}@{netns}"));
        }
        format!("start {uid}@{netns}")
    }

    fn look(&self) -> String {
        let running = self.0.running().map(|(uid, _)| uid.clone());
        let pending = self.0.pending().map(|(uid, _)| format!("{uid}!"));
        let ready = if self.0.is_ready() { "ready" } else { "not ready" };
        running.chain(pending).chain([ready.to_owned()]).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn readiness_needs_a_snapshot_and_nothing_pending() {
    Script::play(
        "look => not ready
         connect
         add a@1 => start a@1
         look => a not ready
         snapshot
         look => a ready
         add b@2! => start b@2
         look => a b! not ready
         try b! => start b@2
         look => a b! not ready
         try b => start b@2
         look => a b ready
         disconnect
         look => a b not ready
         connect
         look => a b not ready",
    );
}

#[test]
fn a_node_without_pods_is_ready_after_its_snapshot() {
    Script::play("connect\n snapshot\n look => ready");
}

#[test]
fn the_same_pod_told_again_goes_on_undisturbed() {
    Script::play(
        "connect
         add a@1 => start a@1
         add a@1 =>
         snapshot
         add a@1 =>
         disconnect
         connect
         add a@1 =>
         snapshot =>
         look => a ready",
    );
}

#[test]
fn a_pod_in_another_namespace_replaces_the_one_before() {
    Script::play(
        "connect
         add a@1 => start a@1
         snapshot
         add a@2 => stop a@1, start a@2
         look => a ready
         add a@3! => stop a@2, start a@3
         look => a! not ready
         add a@4 => start a@4
         look => a ready",
    );
}

#[test]
fn what_a_new_snapshot_does_not_mention_is_stopped_and_what_it_keeps_is_not() {
    Script::play(
        "connect
         add a@1 => start a@1
         add b@2 => start b@2
         add c@3 => start c@3
         snapshot
         disconnect
         connect
         keep b
         add a@1 =>
         look => a b c not ready
         snapshot => stop c@3
         look => a b ready",
    );
}

#[test]
fn a_snapshot_that_is_cut_short_stops_nothing() {
    Script::play(
        "connect
         add a@1 => start a@1
         add b@2 => start b@2
         snapshot
         connect
         keep a
         disconnect
         look => a b not ready
         connect
         keep b
         snapshot => stop a@1
         look => b ready",
    );
}

#[test]
fn a_pod_deleted_while_pending_disappears() {
    Script::play(
        "connect
         snapshot
         add a@1! => start a@1
         del a =>
         look => ready
         try a =>",
    );
}

#[test]
fn pending_pods_survive_a_reconnect_unless_its_snapshot_leaves_them_out() {
    Script::play(
        "connect
         add a@1! => start a@1
         add b@2! => start b@2
         snapshot
         disconnect
         look => a! b! not ready
         connect
         keep a
         snapshot
         look => a! not ready
         try a => start a@1
         look => a ready",
    );
}

#[test]
fn a_pod_deleted_during_the_snapshot_is_stopped_at_once() {
    Script::play(
        "connect
         add a@1 => start a@1
         snapshot
         connect
         keep a
         del a => stop a@1
         snapshot =>
         look => ready",
    );
}

#[test]
fn deleting_what_is_not_known_is_no_error() {
    Script::play("connect\n del a =>\n snapshot\n del a =>\n look => ready");
}

#[test]
fn messages_that_make_no_sense_are_refused_and_change_nothing() {
    Script::play(
        "connect
         add a@1 => start a@1
         snapshot
         keep a => refused: pod keep received after snapshot
         snapshot => refused: pod snapshot received already
         add @1 => refused: uid is required but not present
         del  => refused: uid is required but not present
         look => a ready
         connect
         keep  => refused: uid is required but not present
         keep a
         snapshot =>
         look => a ready",
    );
}

#[test]
fn pods_that_run_or_wait_are_known() {
    let mut script = Script(Pods::new());
    for line in ["connect", "add a@1", "add b@2!"] {
        script.step(line);
    }
    let known = ["a", "b", "c"].map(|uid| script.0.knows(&uid.to_owned()));
    assert_eq!(known, [true, true, false]);
}

#[test]
fn an_agent_that_announces_pods_without_end_is_refused_at_the_bound() {
    let mut script = Script(Pods::new());
    for n in 0..MOST {
        assert_eq!(script.step(&format!("keep pod{n}")), "");
    }
    assert_eq!(script.step("keep another"), format!("refused: more pods than {MOST}"));
    assert_eq!(script.step("keep pod0"), "", "what is known stays");
}
