// Passkeys: a button with [data-passkey] asks the browser, puts its answer into the form and sends that.
const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const withIds = (list) => (list ?? []).map((item) => ({ ...item, id: bytes(item.id) }));

const create = async (options) => {
  const publicKey = {
    ...options,
    challenge: bytes(options.challenge),
    user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: withIds(options.excludeCredentials),
  };
  const made = await navigator.credentials.create({ publicKey });
  const { clientDataJSON, attestationObject } = made.response;
  return { ...named(made), response: { clientDataJSON: text(clientDataJSON), attestationObject: text(attestationObject) } };
};

const get = async (options) => {
  const publicKey = { ...options, challenge: bytes(options.challenge), allowCredentials: withIds(options.allowCredentials) };
  const shown = await navigator.credentials.get({ publicKey });
  const { clientDataJSON, authenticatorData, signature } = shown.response;
  const response = { clientDataJSON: text(clientDataJSON), authenticatorData: text(authenticatorData), signature: text(signature) };
  return { ...named(shown), response };
};

const named = (credential) => ({ id: credential.id, rawId: text(credential.rawId), type: credential.type });

const WHY = {
  NotAllowedError: 'The browser was not allowed to, or it took too long. Try again.',
  InvalidStateError: 'This device has a passkey for you already.',
  SecurityError: 'The address of this page is not the one that passkeys are for.',
};

document.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-passkey]');
  if (!button) return;
  event.preventDefault();
  const note = document.getElementById(button.dataset.note);
  button.setAttribute('aria-busy', 'true');
  note.textContent = '';
  try {
    if (!navigator.credentials) throw new Error('This browser has no passkeys here: they need https.');
    const answer = await (button.dataset.passkey === 'create' ? create : get)(JSON.parse(button.dataset.options));
    button.form.elements[button.dataset.field].value = JSON.stringify(answer);
    button.form.submit();
  } catch (error) {
    note.textContent = WHY[error.name] ?? error.message;
  } finally {
    button.removeAttribute('aria-busy');
  }
});
