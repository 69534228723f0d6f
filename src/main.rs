fn main() -> std::process::ExitCode {
    hallpass::cli::run(hallpass::net::syscall::stdout_was_closed())
}
