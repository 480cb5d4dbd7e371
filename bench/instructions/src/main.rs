//! The hot functions of `hbone`, one at a time and any number of times: `instructions` names them, `instructions NAME
//! COUNT` runs one. `cargo xtask instructions` counts under callgrind what one more run of each costs.

mod operations;
mod pair;

use std::process::ExitCode;

use operations::OPERATIONS;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        OPERATIONS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let count = arguments.next().and_then(|text| text.parse().ok());
    let operation = OPERATIONS.iter().find(|(known, _)| *known == name);
    let Some(((_, run), count)) = operation.zip(count) else {
        eprintln!("usage: instructions [NAME COUNT]; without arguments it tells the names");
        return ExitCode::FAILURE;
    };
    run(count);
    ExitCode::SUCCESS
}
