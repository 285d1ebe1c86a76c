// Passkeys: asks the browser for one, and sends what it says with the form that asked.
//
//   <form data-passkey="create" data-passkey-options="ID">   makes one, from the options in a JSON block
//   <form data-passkey="get" data-passkey-options="ID">      proves one, likewise
//   <form data-passkey="sign-in">                            proves one, with options fetched from its address
//
// Buttons of these forms are disabled until it is known that this page can use passkeys.
// [data-passkeys] is hidden where it cannot, and [data-passkeys-missing] says why.

const bytesOf = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
const textOf = (bytes) =>
  btoa(Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join(""))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");

const described = (list) => (list ?? []).map((each) => ({ ...each, id: bytesOf(each.id) }));

// A passkey is kept by the device: it signs in alone. That the device asks who is there, the server says.
const toCreate = ({ publicKey: asked }) => ({
  ...asked,
  challenge: bytesOf(asked.challenge),
  user: { ...asked.user, id: bytesOf(asked.user.id) },
  excludeCredentials: described(asked.excludeCredentials),
  authenticatorSelection: {
    ...asked.authenticatorSelection,
    residentKey: "required",
    requireResidentKey: true,
  },
});
const toGet = ({ publicKey: asked }) => ({
  ...asked,
  challenge: bytesOf(asked.challenge),
  allowCredentials: described(asked.allowCredentials),
});

const RESPONSE = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];

const sendable = (credential) => ({
  id: credential.id,
  rawId: textOf(credential.rawId),
  type: credential.type,
  authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
  clientExtensionResults: credential.getClientExtensionResults(),
  response: {
    ...Object.fromEntries(
      RESPONSE.filter((name) => credential.response[name]).map((name) => [name, textOf(credential.response[name])]),
    ),
    transports: credential.response.getTransports?.(),
  },
});

const whyMissing = () => {
  const host = location.hostname;
  if (!window.isSecureContext) {
    return gettext("Passkeys need HTTPS: browsers offer them on no other connection.");
  }
  if (!window.PublicKeyCredential) return gettext("This browser does not know passkeys.");
  if (/^[\d.]+$|:/.test(host)) {
    return gettext("Passkeys belong to a host name, and this page was opened by its IP address.");
  }
  return "";
};

const ERRORS = {
  NotAllowedError: () => gettext("It was cancelled, or took too long. Nothing has changed."),
  InvalidStateError: () => gettext("This device has a passkey of this account already."),
  SecurityError: () => gettext("The browser does not allow passkeys at this address."),
  TooMany: () => gettext("Too many tries. Wait a minute, then try again."),
  Unreachable: () => gettext("The gateway does not answer. Try again in a moment."),
};
const OTHER = () => gettext("The browser could not do it. Nothing has changed.");

const say = (form, error) => {
  const place = form.querySelector("[data-passkey-error]");
  place.textContent = (ERRORS[error.name] ?? OTHER)();
  place.hidden = false;
};
const named = (name) => Object.assign(new Error(name), { name });

const fetched = async (address) => {
  const answer = await fetch(address, { headers: { Accept: "application/json" } }).catch(() => null);
  if (answer?.ok) return (await answer.json()).request_options;
  throw named(answer?.status === 429 ? "TooMany" : "Unreachable");
};
const given = (form) => JSON.parse(document.getElementById(form.dataset.passkeyOptions).textContent);

const ceremonies = {
  create: async (form) => navigator.credentials.create({ publicKey: toCreate(given(form).creation_options) }),
  get: async (form) => navigator.credentials.get({ publicKey: toGet(given(form).request_options) }),
  "sign-in": async (form) => navigator.credentials.get({ publicKey: toGet(await fetched(form.action)) }),
};

const perform = async (form, button) => {
  form.querySelector("[data-passkey-error]").hidden = true;
  button.disabled = true;
  try {
    const credential = await ceremonies[form.dataset.passkey](form);
    form.elements.credential.value = JSON.stringify(sendable(credential));
    form.submit();
  } catch (error) {
    say(form, error);
    button.disabled = false;
    button.focus();
  }
};

const missing = whyMissing();
for (const part of document.querySelectorAll("[data-passkeys]")) part.hidden = Boolean(missing);
for (const place of document.querySelectorAll("[data-passkeys-missing]")) {
  place.textContent = missing;
  place.hidden = !missing;
}
for (const form of document.querySelectorAll("form[data-passkey]")) {
  const button = form.querySelector("button[type=submit]");
  button.disabled = Boolean(missing);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    perform(form, button);
  });
}
