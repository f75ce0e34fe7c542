//! The campaign brief, as an account manager would write it.

use super::media_plan::{BRANCHES, CHANNELS};

/// The brief as UTF-8 text: Portuguese with accents, dashes and a bullet list for all branches, lines ended by `\n`.
pub(super) fn text() -> String {
    let branches = BRANCHES.map(|branch| format!("  • {branch}\n")).concat();
    let channels = CHANNELS.join(", ");
    format!(
        "BRIEFING – CAMPANHA SÃO JOÃO 2026\n\
         =================================\n\
         \n\
         Cliente: Café Sertão\n\
         Período: 1º de junho a 15 de julho de 2026\n\
         Verba: R$ 1.850.000,00\n\
         \n\
         1. Desafio\n\
         O Café Sertão é líder no Nordeste, mas pouco lembrado fora dele. A festa junina é a ocasião em que\n\
         o país inteiro olha para a região: queremos estar na mesa, na quermesse e no celular.\n\
         \n\
         2. Público\n\
         Famílias de 25 a 55 anos que recebem em casa; jovens que viajam para as festas.\n\
         \n\
         3. Mensagem\n\
         «Tem cheiro de São João.» Tom caloroso, bem-humorado, sem caricatura do sertanejo.\n\
         \n\
         4. Canais\n\
         {channels}.\n\
         \n\
         5. Peças por filial\n\
         {branches}\
         \n\
         6. Aprovação\n\
         Peças em CONFIDENCIAL até 25 de maio. Nada sai da rede das filiais antes da aprovação do cliente;\n\
         dúvidas com Conceição Araújo (atendimento) ou João Güntzel (criação).\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_branch_and_channel_is_named_and_no_line_is_indented_by_the_source() {
        let text = text();
        for word in BRANCHES.iter().chain(&CHANNELS) {
            assert!(text.contains(word), "{word} is missing");
        }
        assert!(text.lines().all(|line| !line.starts_with("   ")));
        assert!(text.starts_with("BRIEFING – ") && text.ends_with(".\n"));
    }
}
