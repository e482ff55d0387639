export {
  type Authority,
  alwaysValid,
  certificateRequest,
  issue,
  selfSigned,
  type Validity,
} from './certificate.ts'
export { linkFault } from './faults.ts'
export { keyId } from './key-id.ts'
