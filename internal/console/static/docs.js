// Starts Swagger UI on the document that the page names.
"use strict";

const root = document.getElementById("swagger-ui");

window.ui = SwaggerUIBundle({
  domNode: root,
  defaultModelsExpandDepth: 0,
  url: root.dataset.openapi,
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null, // the default sends the document to another host
});
