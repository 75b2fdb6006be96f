// The pages of the API's document. Everything comes from here; requests are tried with the caller's own cookies.
window.SwaggerUIBundle({
  url: document.querySelector('#swagger-ui').dataset.schema,
  dom_id: '#swagger-ui',
  deepLinking: true,
  persistAuthorization: false,
})
