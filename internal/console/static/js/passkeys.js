// Passkeys: asks the authenticator what a form says, and sends its answer with the form.
"use strict";

(() => {
  const decode = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const encode = (bytes) => bytes && btoa(String.fromCharCode(...new Uint8Array(bytes)))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

  // The options come as JSON, with bytes in base64url.
  function withBytes(options) {
    options.challenge = decode(options.challenge);
    if (options.user) options.user.id = decode(options.user.id);
    for (const list of [options.excludeCredentials, options.allowCredentials]) {
      for (const credential of list || []) credential.id = decode(credential.id);
    }
    return options;
  }

  function asJSON(credential) {
    const r = credential.response;
    const response = { clientDataJSON: encode(r.clientDataJSON) };
    if (r.attestationObject) {
      response.attestationObject = encode(r.attestationObject);
      response.transports = r.getTransports ? r.getTransports() : [];
    } else {
      response.authenticatorData = encode(r.authenticatorData);
      response.signature = encode(r.signature);
      response.userHandle = encode(r.userHandle) || undefined;
    }
    return JSON.stringify({
      id: credential.id, rawId: encode(credential.rawId), type: credential.type, response, clientExtensionResults: {},
      authenticatorAttachment: credential.authenticatorAttachment || undefined,
    });
  }

  const reasons = {
    InvalidStateError: "This device has a passkey of your account already.",
    NotAllowedError: "Nothing was confirmed on your device. Press the button to try again.",
    SecurityError: "The browser allows no passkey at this address.",
  };

  async function ask(form) {
    if (form.dataset.asking) return;
    form.dataset.asking = "yes";
    const status = form.querySelector("[data-passkey-status]");
    status.textContent = "Follow the instructions of your device.";
    try {
      const publicKey = withBytes(JSON.parse(form.dataset.options).publicKey);
      const credentials = navigator.credentials;
      const answer = await (form.dataset.passkey === "create" ? credentials.create({ publicKey }) : credentials.get({ publicKey }));
      form.elements.credential.value = asJSON(answer);
      form.submit();
    } catch (error) {
      status.textContent = reasons[error.name] || "Your device could not do this. Try again, or use another way.";
      delete form.dataset.asking;
    }
  }

  // Before the other listeners: the form is sent once the device has answered.
  document.addEventListener("submit", (event) => {
    if (event.target.dataset.passkey) {
      event.preventDefault();
      event.stopPropagation();
      ask(event.target);
    }
  }, true);

  document.addEventListener("DOMContentLoaded", () => {
    const supported = Boolean(window.PublicKeyCredential);
    for (const element of document.querySelectorAll("[data-passkey-needed]")) element.hidden = !supported;
    for (const element of document.querySelectorAll("[data-passkey-missing]")) element.hidden = supported;
    const form = document.querySelector("form[data-passkey]");
    if (form && supported) ask(form);
  });
})();
