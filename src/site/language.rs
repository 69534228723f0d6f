//! The languages of the site.

/// A language of the built-in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// German.
    De,
    /// French.
    Fr,
    /// Spanish.
    Es,
}

/// The words of the first page and of the answer to a wrong address.
pub(super) struct Words {
    pub title: &'static str,
    pub text: &'static str,
    pub imprint: &'static str,
    pub test: &'static str,
    pub not_found: &'static str,
    pub no_page: &'static str,
}

impl Language {
    /// The tag of the language (RFC 5646).
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
            Self::Fr => "fr",
            Self::Es => "es",
        }
    }

    pub(super) fn words(self) -> Words {
        match self {
            Self::En => Words {
                title: "Welcome",
                text: "This server is up and running.",
                imprint: "Legal notice",
                test: "Connection test",
                not_found: "Page not found",
                no_page: "There is no page at this address.",
            },
            Self::De => Words {
                title: "Willkommen",
                text: "Dieser Server läuft.",
                imprint: "Impressum",
                test: "Verbindungstest",
                not_found: "Seite nicht gefunden",
                no_page: "Unter dieser Adresse gibt es keine Seite.",
            },
            Self::Fr => Words {
                title: "Bienvenue",
                text: "Ce serveur fonctionne.",
                imprint: "Mentions légales",
                test: "Test de connexion",
                not_found: "Page introuvable",
                no_page: "Il n’y a pas de page à cette adresse.",
            },
            Self::Es => Words {
                title: "Bienvenido",
                text: "Este servidor está en funcionamiento.",
                imprint: "Aviso legal",
                test: "Prueba de conexión",
                not_found: "Página no encontrada",
                no_page: "No hay ninguna página en esta dirección.",
            },
        }
    }
}
