//! `quarta-testnet`: local networks, and the demo of the main job.

fn main() -> std::process::ExitCode {
    quarta_testnet::cli::main_with(std::env::args_os())
}
