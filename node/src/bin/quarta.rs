//! The program `quarta`.

fn main() -> std::process::ExitCode {
    quarta_node::cli::main_with(std::env::args_os())
}
